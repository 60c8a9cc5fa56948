"""Data sets as shards: WebDataset tar files of photos or of features, read from a folder or from any fsspec URL.

    shards.json         the index: every shard with its split, counts, sizes and SHA-256
    train-000000.tar    WebDataset: train-000000-000000.jpg with a .json of the photo's name and captions
    train-000000.rows   one line of JSON per photo: name, position in the tar file, SHA-256, captions

The rows allow random access: a photo is read by its position, not by counting through a stream. The captions of a data
set are read without its photos. Any WebDataset reader can read the tar files.
"""
