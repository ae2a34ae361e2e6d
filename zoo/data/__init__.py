"""Images as arrays: sources, the decoded cache, resident batches, augmentation and checks.

`zoo.data.batches.resident` and `zoo.data.augment.pipeline` need torch; nothing that is imported here does.
"""
