"""Bars of Binance's spot market: the HTTP client, the paging, and the source over the cache."""
