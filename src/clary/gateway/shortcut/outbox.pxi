# What one process has to write.

cdef Py_ssize_t LARGE_PIECE = LARGE


cdef class Outbox:
    """`clary.gateway.outbox.Outbox`, compiled."""
    cdef object call_soon
    cdef tuple under_way
    cdef list waiting

    def __init__(self, loop, *under_way):
        self.call_soon = loop.call_soon
        self.under_way = under_way
        self.waiting = []

    def write(self, transport, data):
        """Write at the end of this turn; nothing to a transport that is closing by then."""
        self.put(transport, data)

    cdef int put(self, transport, data) except -1:
        if len(data) > LARGE_PIECE or self.alone():
            self.flush()
            transport.write(data)
            return 0
        if not self.waiting:
            self.call_soon(self.flush)
        self.waiting.append((transport, data))
        return 0

    cdef bint alone(self) except -1:
        """Tell whether one request at most is being answered."""
        cdef Py_ssize_t number = 0
        if not self.under_way:
            return False
        for each in self.under_way:
            number += len(each)
        return number < 2

    cpdef flush(self):
        """Write now: before a transport is closed in good order."""
        cdef list waiting = self.waiting
        self.waiting = []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
