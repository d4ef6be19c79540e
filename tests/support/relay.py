"""A bad line to a server: relays TCP on loopback, limits what comes back, counts it, holds it, or ends connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_BLOCK = 64 * 1024


class Relay:
    """Listens on `port`, hands on to port `target` of `host`; `rate` is bytes a second in all (0: no limit).

    The first `breaks` connections whose client sends the bytes `breaks_at` end before they arrive, and the first
    `cuts` answers end half way. While `refuses` is set, new connections end before a byte is read, and open ones
    at their next byte; it is set once `ends_after` bytes have come back (0: never). While `flows` is cleared,
    nothing passes, and no connection ends; it is cleared once the clients have sent `holds_after` bytes (0: never).
    `connections` counts those that it has accepted, and `sent` the bytes of their clients.
    """

    def __init__(
        self, target: int, rate: int = 0, breaks_at: bytes = b"", breaks: int = 1, host: str = "127.0.0.1"
    ) -> None:
        self.rate = rate
        self.breaks_at = breaks_at
        self.breaks = breaks
        self.cuts = 0
        self.refuses = False
        self.ends_after = 0
        self.holds_after = 0
        self.passed = 0
        self.sent = 0
        self.connections = 0
        self.flows = threading.Event()
        self.flows.set()
        self._host = host
        self._target = target
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self.refuses:
                    client.close()
                    continue
                try:
                    server = socket.create_connection((self._host, self._choose()))
                except ConnectionRefusedError:  # the server is not up yet
                    client.close()
                    continue
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _choose(self) -> int:
        return self._target

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                self.flows.wait()
                if self.refuses:
                    break
                if counted:
                    self._account(len(block))
                    if self._cuts():
                        target.sendall(block[: len(block) // 2])
                        break
                elif self._breaks(block):
                    break
                else:
                    block = self._hold(block, target)
                target.sendall(block)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _hold(self, block: bytes, target: socket.socket) -> bytes:
        """Hand on the bytes up to `holds_after`, and return the rest once the bytes flow again."""
        with self._lock:
            left = self.holds_after - self.sent
            self.sent += len(block)
            if not 0 < left <= len(block):
                return block
            self.flows.clear()
        target.sendall(block[:left])
        self.flows.wait()
        if self.refuses:
            raise ConnectionAbortedError
        return block[left:]

    def _breaks(self, block: bytes) -> bool:
        with self._lock:
            found = bool(self.breaks_at) and self.breaks_at in block
            if found:
                self.breaks -= 1
                if self.breaks <= 0:
                    self.breaks_at = b""
            return found

    def _cuts(self) -> bool:
        with self._lock:
            self.cuts -= 1
            return self.cuts >= 0

    def _account(self, size: int) -> None:
        with self._lock:
            self.passed += size
            self.refuses = self.refuses or 0 < self.ends_after <= self.passed
            if self.rate:
                time.sleep(size / self.rate)
