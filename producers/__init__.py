"""What a person or an upstream program asks of Promptmill."""
