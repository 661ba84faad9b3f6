"""Who wrote the files: one module a format, which reads files and gives records (:mod:`vitrail.data.records`)."""
