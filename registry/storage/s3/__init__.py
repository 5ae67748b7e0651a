"""Blobs in a bucket of S3, or of a service that speaks like it.

state     what an upload's row says about its bytes: pure
bucket    the operations of S3 that are needed, errors in our words
spool     the part being filled, in an unlinked file
writer    one piece of an upload
reading   a blob's bytes, and signed URLs for them
store     all of it together
"""
