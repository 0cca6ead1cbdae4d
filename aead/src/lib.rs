//! ChaCha20-Poly1305 over a batch of packets.
