# An invocation under way, and who hears its two ends.

cdef bytes STATUS = b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: "
cdef bytes VARIANT = b"\r\nx-Amzn-Invoked-Production-Variant: "
cdef bytes CONTENT_LENGTH = b"\r\nContent-Length: "


cdef class Plain:
    """One plain invocation under way: the client's exchange, and the hearer of its answer."""
    cdef Shortcut shortcut
    cdef readonly object client, route, variant, target, upstream, resident
    cdef readonly bytes data, model
    cdef Py_ssize_t body
    """Where the request's begins."""
    cdef readonly double arrived, sent_at, answered_at
    cdef readonly Py_ssize_t remaining
    """Bytes of the answer's body that are still to come; 0 before its head and after its end."""
    cdef long long number
    cdef Path path
    cdef object successor

    @property
    def endpoint(self):
        return self.path.endpoint

    @property
    def payload(self):
        return self.data[self.body:]

    @property
    def request_id(self):
        return self.shortcut.state.request_id(self.number)

    cdef bint answered(self, bytes data) except -1:
        """Take a piece of the answer, if it is plain; False, and the long way goes on with it, if it is not."""
        cdef Message *message = &self.shortcut.message
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self.remaining:
            return self.more(data)
        self.answered_at = perf_counter()
        if (size < 32 or not same(<const unsigned char *> PyBytes_AS_STRING(data), b"HTTP/1.1 200 ", 13)
                or not parse(data, message) or message.length < size - message.body
                or not self.client.adopted.keep_alive or self.upstream.transport.get_write_buffer_size()):
            self.become()
            return False
        self.remaining = message.length - (size - message.body)
        answer = self.answer(data)
        if self.remaining:
            self.write(answer)
        else:
            self.leave()
            self.end(answer)
        return True

    cdef int write(self, bytes data) except -1:
        """Write to the client, as its connection does."""
        self.client.wrote = True
        self.shortcut.outbox.put(self.client.transport, data)
        return 0

    cdef int leave(self) except -1:
        """Let the container's connection be there for the next one, as `Pool.give_back` does."""
        upstream = self.upstream
        cdef list idle = self.shortcut.idle.get(upstream.address)
        upstream.plain = None
        if idle is None or upstream.transport.is_closing():
            self.shortcut.pool.give_back(upstream)
        else:
            upstream.idle_since = self.shortcut.clock()
            idle.append(upstream)
        return 0

    cdef bint more(self, bytes data) except -1:
        """Pass on a further piece of the body."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size < self.remaining:
            self.remaining -= size
            self.write(data)
            return True
        if size > self.remaining:
            if data[self.remaining:].strip(b"\r\n"):  # it says more than it was asked; empty lines are nothing
                self.upstream.transport.close()
            data = data[:self.remaining]
        self.leave()
        self.remaining = 0
        self.end(data)
        return True

    cdef int end(self, bytes last) except -1:
        """Write the last piece, and count."""
        cdef Shortcut shortcut = self.shortcut
        cdef double now, model
        self.write(last)
        id = self.target.id
        left = shortcut.load.get(id, 1) - 1
        if left > 0:
            shortcut.load[id] = left
        else:
            shortcut.load.pop(id, None)
        shortcut.deadlines.pop(self, None)
        if self.resident is not None:
            shortcut.models.release(self.resident)
            shortcut.state.meter.model(self.path.endpoint, self.variant.name, 0.0)
        if self.path.only is None or shortcut.failing:
            shortcut.outliers.answered(id, self.answered_at - self.sent_at)
        now = perf_counter()
        model = now - self.sent_at
        shortcut.count(self.path.endpoint, self.route, self.variant, model, now - self.arrived - model)
        client = self.client
        if client.deaf or client.write_paused or len(client.exchanges) > 1 or not (client.reading and client.adopted.keep_alive):
            client.finish()
        else:
            client.exchanges.clear()
            client.begun = False
        return 0

    cdef bytes answer(self, bytes data):
        """Write the client's answer as `Invocation` does."""
        cdef Message *message = &self.shortcut.message
        cdef bytes prefix = self.shortcut.prefix
        cdef bytes variant = self.variant.name.encode()
        cdef Py_ssize_t rest = PyBytes_GET_SIZE(data) - message.body
        cdef Header *length = &message.headers[message.places[LENGTH]]
        cdef Py_ssize_t size = PyBytes_GET_SIZE(STATUS) + PyBytes_GET_SIZE(prefix) + 12 + PyBytes_GET_SIZE(VARIANT)
        cdef Header *header
        cdef int i
        size += PyBytes_GET_SIZE(variant) + PyBytes_GET_SIZE(CONTENT_LENGTH) + length.value_size + 4 + rest
        for i in range(message.count):
            header = &message.headers[i]
            if header.kind in (TYPE, ATTRIBUTES):
                size += 2 + (header.value + header.value_size - header.line)
        cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
        cdef unsigned char *here = put_bytes(<unsigned char *> PyBytes_AS_STRING(made), STATUS)
        here = put_bytes(here, prefix)
        for i in range(12):
            here[i] = HEXADECIMAL[(self.number >> (44 - 4 * i)) & 15]
        here = put_bytes(here + 12, VARIANT)
        here = put_bytes(here, variant)
        for i in range(message.count):
            header = &message.headers[i]
            if header.kind in (TYPE, ATTRIBUTES):
                here = put_bytes(here, b"\r\n")
                here = put(here, header.line, header.value + header.value_size - header.line)
        here = put_bytes(here, CONTENT_LENGTH)
        here = put(here, length.value, length.value_size)
        here = put_bytes(here, b"\r\n\r\n")
        put(here, <const unsigned char *> PyBytes_AS_STRING(data) + message.body, rest)
        return made

    cdef object become(self):
        """Go on the long way, as if it had been taken from the start."""
        if self.successor is None:
            self.successor = self.shortcut.way.become(self, self.data, self.client)
        return self.successor

    def begin(self): ...

    def feed(self, data): ...

    def complete(self): ...

    def pause(self):
        self.upstream.pause()

    def resume(self):
        self.upstream.resume()

    def lost(self):
        self.become().lost()

    def time_out(self):
        self.become().time_out()

    def broken(self, error, *, answered):
        self.become().broken(error, answered=answered)


cdef class ClientEar:
    """Hears one client, and tells its connection what is not plain."""
    cdef Shortcut shortcut
    cdef object client

    def hear(self, bytes data):
        client = self.client
        if (client.exchanges or not client.head.complete or client.write_paused or client.deaf
                or not self.shortcut.take(data, client)):
            client.receive(data)
        else:
            client.heard = True


cdef class ContainerEar:
    """Hears one container, and tells its connection what is not plain."""
    cdef object upstream

    def hear(self, bytes data):
        upstream = self.upstream
        plain = upstream.plain
        if plain is None:
            upstream.receive(data)
            return
        upstream.answered = True
        if not (<Plain?> plain).answered(data):
            upstream.receive(data)
