"""Networks and the sampler: tensors only, no files, no labels."""
