"""Options of data modules that change no sample: how fast files are read and prepared, and where they are."""

# Not num_workers: in a data module of the user's, each loading worker may draw its own random numbers.
PREPARATION_WORKERS = ("generation_workers", "preprocessing_workers", "reconstruction_workers")
WITHOUT_INFLUENCE = ("cache_dir", "download", "pin_memory", *PREPARATION_WORKERS)
