"""Documents to batches: readers, filters, deduplication, shards, packing, conversations."""
