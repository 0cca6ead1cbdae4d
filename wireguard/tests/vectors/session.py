#!/usr/bin/env python3
"""Prints every byte of a WireGuard session made from fixed keys: python3 session.py > session.txt

Written from the paper and RFC 7748, 8439 and draft-irtf-cfrg-xchacha-03 with the standard library only, and shares
nothing with the Rust code it is compared with. Slow and not constant in time: for test vectors alone.
"""

import hashlib
import hmac
import struct

P = 2**255 - 19


def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | 1 << 254
    u = int.from_bytes(point, "little") & ~(1 << 255)
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if bit != swapped:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(private):
    return x25519(private, (9).to_bytes(32, "little"))


def rounds(words):
    state = list(words)

    def quarter(a, b, c, d):
        for x, y, z, shift in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = state[x] + state[y] & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << shift | mixed >> 32 - shift) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return state


SIGMA = struct.unpack("<4I", b"expand 32-byte k")


def chacha20_block(key, counter, nonce):
    words = SIGMA + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    return struct.pack("<16I", *(a + b & 0xFFFFFFFF for a, b in zip(rounds(words), words)))


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def zeros(data):
    return bytes(-len(data) % 16)


def seal_with(key, nonce, plaintext, additional):
    stream = b"".join(chacha20_block(key, 1 + n, nonce) for n in range(len(plaintext) // 64 + 1))
    sealed = bytes(a ^ b for a, b in zip(plaintext, stream))
    lengths = struct.pack("<QQ", len(additional), len(sealed))
    tag_input = additional + zeros(additional) + sealed + zeros(sealed) + lengths
    return sealed + poly1305(chacha20_block(key, 0, nonce)[:32], tag_input)


def aead(key, counter, plaintext, additional):
    return seal_with(key, bytes(4) + struct.pack("<Q", counter), plaintext, additional)


def xaead(key, nonce, plaintext, additional):
    state = rounds(SIGMA + struct.unpack("<8I", key) + struct.unpack("<4I", nonce[:16]))
    return seal_with(struct.pack("<8I", *state[:4], *state[12:]), bytes(4) + nonce[16:], plaintext, additional)


def hash_of(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def kdf(count, key, data):
    secret, output, outputs = hmac.new(key, data, hashlib.blake2s).digest(), b"", []
    for number in range(1, count + 1):
        output = hmac.new(secret, output + bytes([number]), hashlib.blake2s).digest()
        outputs.append(output)
    return outputs


class Handshake:
    """Chaining key and hash, which are the same on both sides."""

    def __init__(self, responder):
        self.key = hash_of(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        self.hash = hash_of(hash_of(self.key, b"WireGuard v1 zx2c4 Jason@zx2c4.com"), responder)

    def mix_hash(self, data):
        self.hash = hash_of(self.hash, data)

    def mix(self, data, count):
        self.key, *rest = kdf(count, self.key, data)
        return rest

    def seal(self, key, plaintext):
        sealed = aead(key, 0, plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed


# Keys, ephemerals and the rest are the bytes a, a + step, ... so that they are easily written down elsewhere.
def counting(first, length, step=1):
    return bytes((first + step * n) % 256 for n in range(length))


INITIATOR, RESPONDER = counting(0x10, 32), counting(0x40, 32, 3)
INITIATOR_EPHEMERAL, RESPONDER_EPHEMERAL = counting(0x70, 32, 5), counting(0xA0, 32, 7)
PRESHARED_KEY = counting(0xD0, 32, 11)
INITIATOR_INDEX, RESPONDER_INDEX = 0x01234567, 0x89ABCDEF
TIMESTAMP = struct.pack(">QI", 0x400000000000000A + 1_700_000_000, 0x12000000)
COOKIE, COOKIE_NONCE = counting(0x33, 16), counting(0x55, 24)


def inner(source, destination, length):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, source, destination)
    return head + counting(length, length - len(head))


def macs(receiver, body, cookie=None):
    body += mac(hash_of(b"mac1----", receiver), body)
    return body + (mac(cookie, body) if cookie else bytes(16))


def data(key, receiver_index, counter, packet):
    head = struct.pack("<IIQ", 4, receiver_index, counter)
    return head + aead(key, counter, packet + zeros(packet), b"")


def session(psk):
    initiator, responder = public(INITIATOR), public(RESPONDER)
    e_i, e_r = public(INITIATOR_EPHEMERAL), public(RESPONDER_EPHEMERAL)
    state = Handshake(responder)
    state.mix(e_i, 1)
    state.mix_hash(e_i)
    static = state.seal(*state.mix(x25519(INITIATOR_EPHEMERAL, responder), 2), initiator)
    timestamp = state.seal(*state.mix(x25519(INITIATOR, responder), 2), TIMESTAMP)
    body = struct.pack("<II", 1, INITIATOR_INDEX) + e_i + static + timestamp
    initiation = macs(responder, body)
    yield "initiation", initiation
    cookie_key, mac1 = hash_of(b"cookie--", responder), initiation[116:132]
    cookie = COOKIE_NONCE + xaead(cookie_key, COOKIE_NONCE, COOKIE, mac1)
    yield "cookie_reply", struct.pack("<II", 3, INITIATOR_INDEX) + cookie
    yield "initiation_with_cookie", macs(responder, body, COOKIE)

    state.mix(e_r, 1)
    state.mix_hash(e_r)
    state.mix(x25519(RESPONDER_EPHEMERAL, e_i), 1)
    state.mix(x25519(RESPONDER_EPHEMERAL, initiator), 1)
    temporary, key = state.mix(psk, 3)
    state.mix_hash(temporary)
    body = struct.pack("<III", 2, RESPONDER_INDEX, INITIATOR_INDEX) + e_r + state.seal(key, b"")
    yield "response", macs(initiator, body)

    from_initiator, from_responder = kdf(2, state.key, b"")
    there, back = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    yield "first_data", data(from_initiator, RESPONDER_INDEX, 0, inner(there, back, 84))
    yield "first_answer", data(from_responder, INITIATOR_INDEX, 0, inner(back, there, 96))
    yield "keepalive", data(from_initiator, RESPONDER_INDEX, 1, b"")
    yield "answering_keepalive", data(from_responder, INITIATOR_INDEX, 1, b"")


for name, psk in (("plain", bytes(32)), ("preshared_key", PRESHARED_KEY)):
    for message, datagram in session(psk):
        print(name, message, datagram.hex())
