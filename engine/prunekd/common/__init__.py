"""What every room uses: files written whole or not at all, the ledger, the machine's description."""
