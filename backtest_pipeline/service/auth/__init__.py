"""Who a request is from, and how many they may make."""
