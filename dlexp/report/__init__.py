"""Reports: what run folders say, as tables and on the terminal. Nothing here needs PyTorch."""
