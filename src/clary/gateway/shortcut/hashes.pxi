# SHA-256, and the signatures that are made of it.

cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    const int RTLD_NOW

ctypedef int (*Begin)(void *state) noexcept nogil
ctypedef int (*Add)(void *state, const void *data, size_t size) noexcept nogil
ctypedef int (*End)(unsigned char *digest, void *state) noexcept nogil

cdef struct Sha256:
    unsigned long long room[32]  # of OpenSSL's SHA256_CTX; it takes fourteen

cdef Begin sha256_begin = NULL
cdef Add sha256_add
cdef End sha256_end


cdef bint find_sha256() except -1:
    """Find the SHA-256 that hashlib uses: called as it is, it costs half of what its Python objects do."""
    global sha256_begin, sha256_add, sha256_end
    cdef unsigned char found[64]
    try:
        path = import_module("_hashlib").__file__.encode()
    except (ImportError, AttributeError):  # hashlib has another one, or it is part of the interpreter
        return False
    cdef void *library = dlopen(path, RTLD_NOW)
    if library == NULL:
        return False
    sha256_begin = <Begin> dlsym(library, b"SHA256_Init")
    sha256_add = <Add> dlsym(library, b"SHA256_Update")
    sha256_end = <End> dlsym(library, b"SHA256_Final")
    if sha256_begin != NULL and sha256_add != NULL and sha256_end != NULL:
        write_hash(b"Clary", 5, found)
        if found[:64] == sha256(b"Clary").hexdigest().encode():
            return True
    sha256_begin = NULL
    return False


IS_DIRECT = find_sha256()
"""Whether SHA-256 is called without hashlib's objects."""


cdef class Key:
    """What the canonical request of one signer is made with, and its signature."""
    cdef object signer
    cdef Sha256 inner, outer
    cdef tuple signed
    cdef bytes prefix, signed_headers
    cdef bytes scope
    cdef bytes token
    cdef bint owner
    cdef bytes stamp
    """A time that was within the clock's bounds in this second."""
    cdef long second

    cdef int prepare(self, bytes inner, bytes outer) except -1:
        """Begin both hashes of HMAC."""
        if sha256_begin != NULL:
            sha256_begin(&self.inner)
            sha256_add(&self.inner, PyBytes_AS_STRING(inner), PyBytes_GET_SIZE(inner))
            sha256_begin(&self.outer)
            sha256_add(&self.outer, PyBytes_AS_STRING(outer), PyBytes_GET_SIZE(outer))
        return 0


cdef int write_hash(const unsigned char *data, Py_ssize_t size, unsigned char *into) except -1:
    """Write the SHA-256 in hexadecimal."""
    cdef Sha256 state
    if sha256_begin == NULL:
        put_bytes(into, sha256(text(data, size)).hexdigest().encode())
        return 0
    sha256_begin(&state)
    sha256_add(&state, data, size)
    write_end(&state, into)
    return 0


cdef void write_end(Sha256 *state, unsigned char *into) noexcept nogil:
    cdef unsigned char digest[32]
    cdef int i
    sha256_end(digest, state)
    for i in range(32):
        into[2 * i] = HEXADECIMAL[digest[i] >> 4]
        into[2 * i + 1] = HEXADECIMAL[digest[i] & 15]


cdef int write_signature(
    Key key, bytes stamp, const unsigned char *canonical, Py_ssize_t size, unsigned char *into
) except -1:
    """Write the signature, in hexadecimal, that a canonical request has at a time; `KnownSigner.signature`."""
    cdef unsigned char hash[64]
    cdef unsigned char digest[32]
    cdef Sha256 state
    if sha256_begin == NULL:
        put_bytes(into, key.signer.signature(stamp.decode(), text(canonical, size)))
        return 0
    write_hash(canonical, size, hash)
    state = key.inner
    sha256_add(&state, b"AWS4-HMAC-SHA256\n", 17)
    sha256_add(&state, PyBytes_AS_STRING(stamp), PyBytes_GET_SIZE(stamp))
    sha256_add(&state, b"\n", 1)
    sha256_add(&state, PyBytes_AS_STRING(key.scope), PyBytes_GET_SIZE(key.scope))
    sha256_add(&state, b"\n", 1)
    sha256_add(&state, hash, 64)
    sha256_end(digest, &state)
    state = key.outer
    sha256_add(&state, digest, 32)
    write_end(&state, into)
    return 0


cdef bint equal(const unsigned char *one, const unsigned char *other) noexcept:
    """Compare 64 bytes in a time that does not depend on where they differ."""
    cdef unsigned char difference = 0
    cdef int i
    for i in range(64):
        difference |= one[i] ^ other[i]
    return difference == 0
