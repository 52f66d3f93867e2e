"""Log groups and streams on disk, as CloudWatch Logs has them: a group is a folder, a stream is one file of lines in it
and a hidden index beside it that tells when they were written. Whoever writes only appends, a container's process
through a descriptor of its own, so logs go on while Clary is down; positions are byte offsets and never move, because
what is too old or too much goes by punching holes. Readers need nothing but the folder. May import `core` and below.
"""
