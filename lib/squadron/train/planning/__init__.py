"""What a training needs before it starts: memory, cost, workers."""
