"""Senders whose SDKs are heavy: imported once their provider is configured, and not while providers are looked for."""
