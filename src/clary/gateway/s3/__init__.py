"""S3 behind the gateway's door: the bundled one over a folder of buckets, or a proxy of one elsewhere."""
