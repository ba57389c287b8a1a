"""What a sweep needs and will cost, known before anything is spent."""
