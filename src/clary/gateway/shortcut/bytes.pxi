# Bytes as C has them.

cdef const char *HEXADECIMAL = b"0123456789abcdef"


cdef inline bytes text(const unsigned char *start, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char *> start, size)


cdef inline unsigned char *put(unsigned char *here, const unsigned char *start, Py_ssize_t size) noexcept nogil:
    memcpy(here, start, size)
    return here + size


cdef inline unsigned char *put_bytes(unsigned char *here, bytes piece) noexcept:
    return put(here, <const unsigned char *> PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
