"""What the answers to all evaluated images say beside the scores, one kind of answer a file."""
