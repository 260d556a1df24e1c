"""Names of other SDKs, over our own sessions."""
