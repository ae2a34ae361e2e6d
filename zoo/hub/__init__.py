"""The Hugging Face Hub: publishing packages, fetching them verified, searching."""
