# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The short way of a plain invocation, compiled: what nearly all requests are, without a Python object for each header.

It may only do what the long way (`clary.gateway.invocation` and what that is made of) would do to the byte, and gives
up before it has done anything where a request is not plain. A plain one came whole in one read, is framed by one
Content-Length and written in visible ASCII, has no header twice and none that steers, is signed by somebody who was
seen before, and goes to one container of an endpoint without extras, over a connection that is open already; where that
container serves many models, to one that is loaded there. An answer is plain where it is a whole 200 in one read. Any
other makes the invocation a long one under way (`become`), as does everything that goes wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.time cimport perf_counter, time
from libc.math cimport INFINITY, fabs, log, rint
from libc.string cimport memchr, memcmp, memcpy

from hashlib import sha256
from random import random

from clary.core.metrics import GROWTH, OFFSET, Statistics
from clary.gateway.meter import Successes
from clary.gateway.outbox import LARGE

cdef extern from *:
    const char *CLARY_SOURCE

SOURCE = CLARY_SOURCE.decode()
"""The SHA-256 of the file that this was compiled from."""

cdef object EMPTY = sha256()
cdef double BUCKET = GROWTH
cdef long ZERO = OFFSET
cdef Py_ssize_t LARGE_PIECE = LARGE

cdef enum:
    MOST_KEPT = 4096
    MOST_HEAD = 16 * 1024
    MOST_HEADERS = 40
    NAMES_SIZE = 1024
    MOST_CANONICAL = 16 * 1024
    MOST_MODEL = 1024  # of the name of a model, by the service model
    SHORT = 64  # of the lengths that the service model bounds, the least

cdef enum:  # what a header is
    OTHER, LENGTH, AUTHORIZATION, HOST, TYPE, ACCEPT, ATTRIBUTES, INFERENCE_ID, DATE, HASH, TOKEN, AGENT, CONNECTION,
    MODEL, FOREIGN  # one that only the long way knows what to do with

cdef struct Header:
    const unsigned char *line    # its line as it came: name, colon, space, value
    const unsigned char *name    # in lower case
    Py_ssize_t name_size
    const unsigned char *value
    Py_ssize_t value_size
    int kind

cdef struct Message:
    Py_ssize_t first             # length of the first line
    Py_ssize_t body              # where the body begins
    Py_ssize_t length            # of the body, as the head says
    Header headers[MOST_HEADERS]
    int count
    int places[FOREIGN]          # where the header of each kind is; -1: it has none
    unsigned char names[NAMES_SIZE]

cdef const char *HEXADECIMAL = b"0123456789abcdef"
cdef unsigned char LOWER[256]    # of the characters of a header's name; 0 for all others

for _character in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
    LOWER[<int> ord(_character)] = LOWER[<int> ord(_character.upper())] = ord(_character)


cdef inline bint same(const unsigned char *one, const char *other, Py_ssize_t size) noexcept nogil:
    return memcmp(one, other, size) == 0


cdef int kind_of(const unsigned char *name, Py_ssize_t size) noexcept nogil:
    """Tell what a header is by its lower-case name."""
    if size == 4:
        if same(name, b"host", 4):
            return HOST
    elif size == 6:
        if same(name, b"accept", 6):
            return ACCEPT
        if same(name, b"expect", 6):
            return FOREIGN
    elif size == 7:
        if same(name, b"upgrade", 7) or same(name, b"trailer", 7):
            return FOREIGN
    elif size == 10:
        if same(name, b"x-amz-date", 10):
            return DATE
        if same(name, b"user-agent", 10):
            return AGENT
        if same(name, b"connection", 10):
            return CONNECTION
    elif size == 12:
        if same(name, b"content-type", 12):
            return TYPE
    elif size == 13:
        if same(name, b"authorization", 13):
            return AUTHORIZATION
    elif size == 14:
        if same(name, b"content-length", 14):
            return LENGTH
    elif size == 16:
        if same(name, b"proxy-connection", 16):  # to the parser of the long way another Connection
            return FOREIGN
    elif size == 17:
        if same(name, b"transfer-encoding", 17):
            return FOREIGN
    elif size == 20:
        if same(name, b"x-amz-content-sha256", 20):
            return HASH
        if same(name, b"x-amz-security-token", 20):
            return TOKEN
    elif size == 29:
        if same(name, b"x-amzn-sagemaker-inference-id", 29):
            return INFERENCE_ID
        if same(name, b"x-amzn-sagemaker-target-model", 29):
            return MODEL
    elif size == 34:
        if same(name, b"x-amzn-sagemaker-custom-attributes", 34):
            return ATTRIBUTES
    if size >= 8 and (same(name, b"x-clary-", 8) or size >= 17 and same(name, b"x-amzn-sagemaker-", 17)):
        return FOREIGN
    return OTHER


cdef bint parse(bytes data, Message *message) noexcept:
    """Read the head of a plain message; False for everything else."""
    cdef const unsigned char *here = <const unsigned char *> PyBytes_AS_STRING(data)
    cdef const unsigned char *end = here + PyBytes_GET_SIZE(data)
    cdef const unsigned char *start = here
    cdef unsigned char *names = message.names
    cdef unsigned char *names_end = names + NAMES_SIZE
    cdef unsigned char character
    cdef Header *header
    cdef int i
    while here < end and 32 <= here[0] < 127:
        here += 1
    message.first = here - start
    message.count = 0
    for i in range(FOREIGN):
        message.places[i] = -1
    while True:
        if end - here < 4 or here[0] != 13 or here[1] != 10:
            return False
        here += 2
        if here[0] == 13:
            if here[1] != 10:
                return False
            here += 2
            break
        if message.count == MOST_HEADERS:
            return False
        header = &message.headers[message.count]
        header.line = here
        header.name = names
        while here < end and names < names_end:
            character = LOWER[here[0]]
            if character == 0:
                break
            names[0] = character
            names += 1
            here += 1
        header.name_size = names - header.name
        if header.name_size == 0 or end - here < 4 or here[0] != 58 or here[1] != 32 or here[2] == 32:
            return False
        here += 2
        header.value = here
        while here < end and 32 <= here[0] < 127:
            here += 1
        header.value_size = here - header.value
        if header.value_size == 0 or (here - 1)[0] == 32:
            return False
        header.kind = kind_of(header.name, header.name_size)
        if header.kind == FOREIGN or header.kind == HOST and memchr(header.value, 44, header.value_size) != NULL:
            return False
        for i in range(message.count):
            if (message.headers[i].name_size == header.name_size
                    and memcmp(message.headers[i].name, header.name, header.name_size) == 0):
                return False
        message.places[header.kind] = message.count
        message.count += 1
    message.body = here - start
    return message.body <= MOST_HEAD and framed(message)


cdef bint framed(Message *message) noexcept:
    """Tell whether the head says how long the body is, and that the connection stays open."""
    cdef Header *header
    cdef Py_ssize_t i
    if message.places[LENGTH] < 0:
        return False
    header = &message.headers[message.places[LENGTH]]
    if header.value_size > 9:
        return False
    message.length = 0
    for i in range(header.value_size):
        if not 48 <= header.value[i] <= 57:
            return False
        message.length = message.length * 10 + header.value[i] - 48
    if message.places[CONNECTION] < 0:
        return True
    header = &message.headers[message.places[CONNECTION]]
    return header.value_size == 10 and (
        same(header.value, b"keep-alive", 10) or same(header.value, b"Keep-Alive", 10)
    )


cdef inline bytes text(const unsigned char *start, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char *> start, size)


cdef inline unsigned char *put(unsigned char *here, const unsigned char *start, Py_ssize_t size) noexcept nogil:
    memcpy(here, start, size)
    return here + size


cdef inline unsigned char *put_bytes(unsigned char *here, bytes piece) noexcept:
    return put(here, <const unsigned char *> PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))


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


cdef class Place:
    """Where a container is."""
    cdef tuple address
    cdef bytes beginning
    """Of its requests."""


cdef class Path:
    """What is known of a request line: whose it is, and the route that was looked at last."""
    cdef str endpoint
    cdef bytes target
    cdef object route
    cdef tuple only
    """The variant and the target of a route that has no other."""
    cdef Place place
    """Where that target is."""
    cdef bint plain
    cdef bint many
    """Its containers serve many models."""


cdef class Key:
    """What the canonical request of one signer is made with, and its signature."""
    cdef object signer, inner, outer
    cdef tuple signed
    cdef bytes signed_headers
    cdef bytes scope
    cdef bytes token
    cdef bint owner
    cdef bytes stamp
    """A time that was within the clock's bounds in this second."""
    cdef long second


cdef class Latencies:
    """`Statistics`, one value after the other."""
    cdef double count, sum, minimum, maximum
    cdef dict histogram

    def __cinit__(self):
        self.minimum, self.maximum = INFINITY, -INFINITY
        self.histogram = {}

    cpdef int add(self, double value) except -1:
        cdef long number = 0
        if value != 0.0:
            number = <long> rint(log(fabs(value)) / BUCKET) + ZERO
            if value < 0.0:
                number = -number
        self.count += 1
        self.sum += value
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
        bucket = number
        self.histogram[bucket] = self.histogram.get(bucket, 0.0) + 1.0
        return 0

    cpdef object statistics(self):
        return Statistics(self.count, self.sum, self.minimum, self.maximum, self.histogram)


cdef class Tally:
    """What was counted of one variant. Added up at once: what is put off makes those wait who come when it is due."""
    cdef str endpoint, variant
    cdef dict instances
    cdef Latencies model, overhead

    def __cinit__(self, str endpoint, str variant):
        self.endpoint, self.variant = endpoint, variant
        self.instances = {}
        self.model, self.overhead = Latencies(), Latencies()

    cdef told(self):
        return Successes(self.endpoint, self.variant, self.instances, self.model.statistics(), self.overhead.statistics())


cdef class Shortcut:
    """Takes plain requests, for one gateway process.

    `way` is the long one, as `clary.gateway.short.LongWay` shows it.
    """
    cdef Message message
    cdef object way, state, routes, pool, clock, outliers, models, next_number
    cdef Outbox outbox
    cdef dict load, deadlines, idle, paths, keys, places, tallies
    cdef tuple lines
    cdef bytes prefix
    cdef double timeout
    cdef Py_ssize_t most
    cdef bint signed
    cdef unsigned char canonical[MOST_CANONICAL]
    cdef public long taken
    """How many requests it took."""

    def __init__(self, way):
        state = way.state
        self.way = way
        self.lines = way.lines
        self.state = state
        self.load = state.load
        self.deadlines = state.deadlines
        self.routes = state.routes
        self.outbox = state.outbox
        self.pool = state.pool
        self.idle = state.pool.idle
        self.clock = state.loop.time
        self.outliers = state.outliers
        self.models = state.models
        state.meter.ask(self.successes)
        self.prefix = state.request_prefix.encode()
        self.next_number = state.next_number
        self.timeout = state.model_timeout
        self.most = state.max_payload
        self.signed = state.verifier is not None
        self.paths = {}
        self.keys = {}
        self.places = {}
        self.tallies = {}
        self.taken = 0

    def client_ear(self, client):
        """Give what hears a client (`ShortWay`)."""
        cdef ClientEar ear = ClientEar.__new__(ClientEar)
        ear.shortcut = self
        ear.client = client
        return ear.hear

    def container_ear(self, upstream):
        """Give what hears a container (`Pool.ear`)."""
        cdef ContainerEar ear = ContainerEar.__new__(ContainerEar)
        ear.upstream = upstream
        return ear.hear

    cpdef bint take(self, bytes data, client) except -1:
        """Take a request that just came, if it is plain; False, and nothing was done, if it is not."""
        cdef Message *message = &self.message
        cdef Header *header
        cdef double arrived
        cdef bytes model
        cdef Path path
        cdef Place place
        cdef Plain plain
        cdef bytes payload
        if PyBytes_GET_SIZE(data) < 64 or not same(<const unsigned char *> PyBytes_AS_STRING(data), b"POST /endpoints/", 16):
            return False
        arrived = perf_counter()
        if not parse(data, message) or message.places[HOST] < 0 or not self.modest():
            return False
        if message.length != PyBytes_GET_SIZE(data) - message.body:
            return False
        path = self.path_of(data)
        if path is None:
            return False
        model = None
        if message.places[MODEL] >= 0:
            header = &message.headers[message.places[MODEL]]
            if header.value_size > MOST_MODEL:
                return False
            model = text(header.value, header.value_size)
        if path.many != (model is not None):
            return False
        payload = data[message.body:]
        if PyBytes_GET_SIZE(payload) > self.most or self.signed and not self.accepts(path, payload, model, client):
            return False
        resident = None
        picked, place = path.only, path.place
        if path.many:
            chosen = self.way.resident(path.route, model)
            if chosen is None:
                return False
            picked, resident = chosen[:2], chosen[2]
            place = self.place_of(picked[1])
        elif picked is None:
            picked = self.state.pick(path.route, None, random(), self.load, self.outliers.out)
            if picked is None:
                return False
            place = self.place_of(picked[1])
        upstream = self.connection(place.address)
        if upstream is None:
            return False
        self.taken += 1
        plain = Plain.__new__(Plain)
        plain.shortcut = self
        plain.client = client
        plain.data = data
        plain.payload = payload
        plain.path = path
        plain.route = path.route
        plain.variant, plain.target = picked
        plain.resident = resident
        plain.model = model
        plain.upstream = upstream
        plain.arrived = arrived
        plain.number = self.next_number()
        id = plain.target.id
        self.load[id] = self.load.get(id, 0) + 1
        self.deadlines[plain] = <double> self.clock() + self.timeout
        beginning = place.beginning
        if resident is not None:
            self.models.take(resident, model.decode())
            beginning = self.way.beginning_of(resident, plain.target.hops[0], model)
        client.exchanges.append((plain, client.adopted))
        client.begun, client.wrote, client.fruitless = True, False, 0
        plain.sent_at = perf_counter()
        upstream.plain, upstream.answered = plain, False
        self.outbox.put(upstream.transport, self.request(beginning, payload))
        return True

    cdef object connection(self, tuple address):
        """Give an idle connection, as `Pool.take` does."""
        cdef list idle = self.idle.get(address)
        while idle:
            upstream = idle.pop()
            if not upstream.transport.is_closing():
                upstream.reused = True
                return upstream
        return None

    cdef Place place_of(self, target):
        """Give where the only container of a target is."""
        cdef Place place
        hop = target.hops[0]
        cdef tuple address = (hop.host, hop.port)
        place = self.places.get(address)
        if place is None:
            place = Place.__new__(Place)
            place.address = address
            place.beginning = self.way.beginning(hop)
            if len(self.places) >= MOST_KEPT:
                self.places.clear()
            self.places[address] = place
        return place

    cdef bint modest(self) noexcept:
        """Tell whether headers that have bounds are far within them."""
        cdef Message *message = &self.message
        cdef int place
        cdef int i
        for i in range(4):
            place = message.places[CARRIED[i]]
            if place >= 0 and message.headers[place].value_size > SHORT:
                return False
        return True

    cdef Path path_of(self, bytes data):
        """Give what the request line leads to, if that is an endpoint without extras."""
        cdef bytes line = data[:self.message.first]
        cdef Path path = self.paths.get(line)
        if path is None:
            found = self.way.path(line)
            if found is None:
                return None
            path = Path.__new__(Path)
            path.endpoint, path.target = found
            if len(self.paths) >= MOST_KEPT:
                self.paths.clear()
            self.paths[line] = path
        route = self.routes.table.endpoints.get(path.endpoint)
        if route is not path.route:
            path.route = route
            path.plain = route is not None and self.way.is_plain(route)
            path.only = self.way.only(route) if path.plain else None
            path.place = self.place_of(path.only[1]) if path.only is not None else None
            path.many = path.plain and self.way.has_many_models(route)
        return path if path.plain else None

    # -- the numbers ---------------------------------------------------------------------------------------------------

    cdef int count(self, str endpoint, variant, double model, double overhead) except -1:
        """Count an answer; its times in seconds."""
        cdef str name = variant.name
        cdef tuple key = (endpoint, name)
        cdef Tally tally = self.tallies.get(key)
        if tally is None:
            tally = self.tallies[key] = Tally(endpoint, name)
        instances = len(variant.targets)
        tally.instances[instances] = tally.instances.get(instances, 0) + 1
        if model > 0.0:
            tally.model.add(model * 1e6)
        tally.overhead.add(overhead * 1e6)
        return 0

    def successes(self):
        """Hand over what was counted since the meter asked last."""
        tallies, self.tallies = self.tallies, {}
        return [(<Tally> tally).told() for tally in tallies.values()]

    # -- the signature -----------------------------------------------------------------------------------------------

    cdef bint accepts(self, Path path, bytes payload, bytes model, client) except -1:
        """Tell whether somebody who was seen before signed this request, and may do so."""
        cdef Message *message = &self.message
        cdef Header *header
        cdef Key key
        cdef bytes stamp, digest
        if message.places[AUTHORIZATION] < 0 or message.places[DATE] < 0:
            return False
        header = &message.headers[message.places[AUTHORIZATION]]
        if header.value_size < 128:
            return False
        key = self.key_of(text(header.value, header.value_size - 64))
        if key is None or not self.same_token(key):
            return False
        stamp = self.current(key)
        if stamp is None:
            return False
        digest = hashed(payload)
        if message.places[HASH] >= 0:
            header = &message.headers[message.places[HASH]]
            if header.value_size != 64 or memcmp(header.value, PyBytes_AS_STRING(digest), 64) != 0:
                return False
        canonical = self.canonical_request(key, path.target, digest)
        if canonical is None:
            return False
        header = &message.headers[message.places[AUTHORIZATION]]
        if not equal(header.value + header.value_size - 64, signature(key, stamp, canonical)):
            return False
        if key.owner:
            return True
        agent = b""
        if message.places[AGENT] >= 0:
            header = &message.headers[message.places[AGENT]]
            agent = text(header.value, header.value_size)
        return self.way.may(key.signer, path.endpoint, agent, model, client)

    cdef Key key_of(self, bytes prefix):
        """Give what is known of an Authorization header without its signature, if its key is still one."""
        cdef Key key = self.keys.get(prefix)
        if key is not None and key.owner:  # it cannot be taken away
            return key
        signer = self.way.signer(prefix)
        if signer is None:
            return None
        if key is None or key.signer is not signer:
            key = Key.__new__(Key)
            key.signer = signer
            key.signed = signer.signed
            key.signed_headers = signer.signed_headers
            key.token = signer.token
            key.inner, key.outer = signer.key.inner, signer.key.outer
            key.scope = signer.scope.encode()
            key.owner = self.way.is_owner(signer)
            if len(self.keys) >= MOST_KEPT:
                self.keys.clear()
            self.keys[prefix] = key
        return key

    cdef bint same_token(self, Key key) noexcept:
        """Tell whether a session's request bears the session's token."""
        cdef int place = self.message.places[TOKEN]
        if PyBytes_GET_SIZE(key.token) == 0:
            return place < 0
        if place < 0 or self.message.headers[place].value_size != PyBytes_GET_SIZE(key.token):
            return False
        return memcmp(self.message.headers[place].value, PyBytes_AS_STRING(key.token), PyBytes_GET_SIZE(key.token)) == 0

    cdef bytes current(self, Key key):
        """Give the request's time if it is within the clock's bounds, and the session not over."""
        cdef Header *header = &self.message.headers[self.message.places[DATE]]
        cdef long second = <long> <double> time()
        if header.value_size != 16:
            return None
        if (key.stamp is not None and second == key.second
                and memcmp(header.value, PyBytes_AS_STRING(key.stamp), 16) == 0):
            return key.stamp
        stamp = text(header.value, 16)
        if not self.way.is_current(key.signer, stamp):
            return None
        key.stamp = stamp
        key.second = second
        return stamp

    cdef bytes canonical_request(self, Key key, bytes target, bytes digest):
        """Assemble it; None where a header that must be signed is not, or one that was signed is not here."""
        cdef Message *message = &self.message
        cdef unsigned char *here = self.canonical
        cdef const unsigned char *wanted
        cdef Py_ssize_t size, room = MOST_CANONICAL - PyBytes_GET_SIZE(target) - PyBytes_GET_SIZE(key.signed_headers) - 128
        cdef int i, found = 0
        cdef bint signed[MOST_HEADERS]
        cdef bytes name
        for i in range(message.count):
            signed[i] = False
        here = put_bytes(here, b"POST\n")
        here = put_bytes(here, target)
        here = put_bytes(here, b"\n\n")
        for name in key.signed:
            wanted = <const unsigned char *> PyBytes_AS_STRING(name)
            size = PyBytes_GET_SIZE(name)
            for i in range(message.count):
                if message.headers[i].name_size == size and memcmp(message.headers[i].name, wanted, size) == 0:
                    break
            else:
                return None
            room -= size + message.headers[i].value_size + 2
            if room < 0:
                return None
            signed[i] = True
            here = put(here, wanted, size)
            here[0] = 58
            here = put(here + 1, message.headers[i].value, message.headers[i].value_size)
            here[0] = 10
            here += 1
        for i in range(message.count):  # unsigned, it steers nothing
            if not signed[i] and must_be_signed(&message.headers[i]):
                return None
        here[0] = 10
        here = put_bytes(here + 1, key.signed_headers)
        here[0] = 10
        here = put_bytes(here + 1, digest)
        return text(self.canonical, here - self.canonical)

    # -- the container's request ---------------------------------------------------------------------------------------

    cdef bytes request(self, bytes beginning, bytes payload):
        """Write the container's request as `Passage` does."""
        cdef Message *message = &self.message
        cdef bytes length = b"\r\nContent-Length: %d\r\n\r\n" % PyBytes_GET_SIZE(payload)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(beginning) + PyBytes_GET_SIZE(length) + PyBytes_GET_SIZE(payload)
        cdef int i, place
        cdef tuple lines = self.lines
        for i in range(4):
            place = message.places[CARRIED[i]]
            if place >= 0:
                size += PyBytes_GET_SIZE(<bytes> lines[i]) + message.headers[place].value_size
        cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
        cdef unsigned char *here = put_bytes(<unsigned char *> PyBytes_AS_STRING(made), beginning)
        for i in range(4):
            place = message.places[CARRIED[i]]
            if place >= 0:
                here = put_bytes(here, <bytes> lines[i])
                here = put(here, message.headers[place].value, message.headers[place].value_size)
        here = put_bytes(here, length)
        put_bytes(here, payload)
        return made


cdef bytes hashed(bytes data):
    """Give the SHA-256 in hexadecimal."""
    hash = EMPTY.copy()  # cheaper than a new one
    hash.update(data)
    return hash.hexdigest().encode()


cdef bytes signature(Key key, bytes stamp, bytes canonical):
    """Give the signature, in hexadecimal, that a canonical request has at a time; `KnownSigner.signature`."""
    inner = key.inner.copy()
    inner.update(b"".join((b"AWS4-HMAC-SHA256\n", stamp, b"\n", key.scope, b"\n", hashed(canonical))))
    outer = key.outer.copy()
    outer.update(inner.digest())
    return outer.hexdigest().encode()


cdef int[4] CARRIED
CARRIED[:] = [TYPE, ATTRIBUTES, INFERENCE_ID, ACCEPT]


cdef bint must_be_signed(Header *header) noexcept:
    """Tell whether a header counts only if it is signed; `x-amzn-trace-id`, which balancers on the way add, is none."""
    return header.name_size >= 6 and same(header.name, b"x-amz-", 6) or (
        header.name_size >= 17 and same(header.name, b"x-amzn-sagemaker-", 17)
    )


cdef bint equal(const unsigned char *one, bytes other) noexcept:
    """Compare 64 bytes in a time that does not depend on where they differ."""
    cdef unsigned char difference = 0
    cdef const unsigned char *two = <const unsigned char *> PyBytes_AS_STRING(other)
    cdef int i
    if PyBytes_GET_SIZE(other) != 64:
        return False
    for i in range(64):
        difference |= one[i] ^ two[i]
    return difference == 0


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


cdef class Plain:
    """One plain invocation under way: the client's exchange, and the hearer of its answer."""
    cdef Shortcut shortcut
    cdef readonly object client, route, variant, target, upstream, resident
    cdef readonly bytes data, payload, model
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
        if self.path.only is None or shortcut.outliers.failing:
            shortcut.outliers.answered(id, self.answered_at - self.sent_at)
        now = perf_counter()
        model = now - self.sent_at
        shortcut.count(self.path.endpoint, self.variant, model, now - self.arrived - model)
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
        cdef Py_ssize_t size = rest + 192 + PyBytes_GET_SIZE(variant)
        cdef Header *header
        cdef int i
        for i in range(message.count):
            if message.headers[i].kind in (TYPE, ATTRIBUTES):
                size += 64 + message.headers[i].value_size
        cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
        cdef unsigned char *start = <unsigned char *> PyBytes_AS_STRING(made)
        cdef unsigned char *here = put_bytes(start, b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: ")
        here = put_bytes(here, prefix)
        for i in range(12):
            here[i] = HEXADECIMAL[(self.number >> (44 - 4 * i)) & 15]
        here = put_bytes(here + 12, b"\r\nx-Amzn-Invoked-Production-Variant: ")
        here = put_bytes(here, variant)
        for i in range(message.count):
            header = &message.headers[i]
            if header.kind in (TYPE, ATTRIBUTES):
                here = put_bytes(here, b"\r\n")
                here = put(here, header.line, header.value + header.value_size - header.line)
        header = &message.headers[message.places[LENGTH]]
        here = put_bytes(here, b"\r\nContent-Length: ")
        here = put(here, header.value, header.value_size)
        here = put_bytes(here, b"\r\n\r\n")
        here = put(here, <const unsigned char *> PyBytes_AS_STRING(data) + message.body, rest)
        return made[:here - start]

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
