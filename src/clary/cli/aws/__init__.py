"""`clary sagemaker <operation>` and `clary sagemaker-runtime <operation>`: the aws CLI's commands, made from the
service model when they are called. Here belong options, shorthand, skeletons, output formats, help pages and the two
ways to call; nothing is written for one operation. A process here lives for one call, so botocore, which takes longer
to import than everything else takes together, is imported only where `direct` cannot do (see docs/cli.md).
"""
