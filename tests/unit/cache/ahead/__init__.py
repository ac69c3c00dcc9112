"""What is fetched before a client asks for it."""
