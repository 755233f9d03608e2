"""Bytes on disk: blobs, layers, images, volumes and the records that tie them together.

Reading order: records, blobs, tar, compression, directories, extract, walk, diff, worker, layers, overlay, images,
archive, volumes.
"""
