"""Is this data sound? Files that cannot be decoded and annotations that are wrong are listed, refused or left out."""
