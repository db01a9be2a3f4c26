"""The one rate limiter: permits in all dimensions at once."""
