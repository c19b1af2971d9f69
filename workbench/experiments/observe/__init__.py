"""What is there in one run: tokens and their chances, attention patterns, what heads look for, how a text goes on."""
