//! WireGuard, sans-IO.
