"""Data sets as shards: WebDataset tar files of photos or of features, read from a folder or from any fsspec URL.

    shards.json         what there is: every shard with its split, counts, sizes and SHA-256
    train-000000.tar    WebDataset: train-000000-000000.jpg beside a .json with the photo's name and captions
    train-000000.rows   a line of JSON for each photo: name, place in the tar file, SHA-256, captions

The rows are what makes a position exact: a photo is read by its place, not by counting through a stream, and the captions of
a data set are read without its photos. Any WebDataset reader takes the tar files as they are.
"""
