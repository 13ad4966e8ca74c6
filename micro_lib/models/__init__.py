"""Networks and what surrounds a trained one; no training inside."""
