# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The short way of a plain invocation, compiled: what nearly all requests are, without a Python object for each header.

It may only do what the long way (`clary.gateway.invocation` and what that is made of) would do to the byte, and gives
up before it has done anything where a request is not plain. A plain one came whole in one read, is framed by one
Content-Length and written in visible ASCII, has no header twice and none that steers, is signed by somebody who was
seen before, and goes to one container of an endpoint, or of an inference component, without extras, over a connection
that is open already; where that container serves many models, to one that is loaded there. An answer is plain where it is a whole 200 in one read. Any
other makes the invocation a long one under way (`become`), as does everything that goes wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.time cimport perf_counter, time
from libc.math cimport INFINITY, fabs, log, rint
from libc.string cimport memchr, memcmp, memcpy

from hashlib import sha256
from importlib import import_module
from random import random

from clary.core.metrics import GROWTH, OFFSET, Statistics
from clary.gateway.meter import Successes
from clary.gateway.outbox import LARGE

cdef extern from *:
    const char *CLARY_SOURCE

SOURCE = CLARY_SOURCE.decode()
"""The SHA-256 of the files that this was compiled from."""

include "bytes.pxi"
include "message.pxi"
include "hashes.pxi"
include "numbers.pxi"
include "outbox.pxi"

cdef enum:
    MOST_KEPT = 4096
    MOST_CANONICAL = 16 * 1024
    MOST_MODEL = 1024  # of the name of a model, by the service model
    SHORT = 64  # of the lengths that the service model bounds, the least

cdef int[4] CARRIED
CARRIED[:] = [TYPE, ATTRIBUTES, INFERENCE_ID, ACCEPT]


cdef class Place:
    """Where a container is."""
    cdef tuple address
    cdef bytes beginning
    """Of its requests."""


cdef class Path:
    """What is known of a request line: whose it is, and the route that was looked at last."""
    cdef str endpoint
    cdef bytes component
    """The inference component that is asked for besides, if one is."""
    cdef bytes target
    cdef bytes line
    cdef long seen
    """The number of the table that was looked into last."""
    cdef object route
    cdef tuple only
    """The variant and the target of a route that has no other."""
    cdef Place place
    """Where that target is."""
    cdef bint plain
    cdef bint many
    """Its containers serve many models."""


cdef class Shortcut:
    """Takes plain requests, for one gateway process.

    `way` is the long one, as `clary.gateway.short.LongWay` shows it.
    """
    cdef Message message
    cdef object way, state, routes, table, pool, clock, outliers, models, next_number
    cdef Outbox outbox
    cdef dict load, deadlines, idle, failing, paths, keys, places, tallies
    cdef long tables
    """How many route tables there were so far, `table` is the last one."""
    cdef Key last_key
    cdef Path last_path
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
        self.failing = state.outliers.failing
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
        cdef const unsigned char *payload
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
        payload = <const unsigned char *> PyBytes_AS_STRING(data) + message.body
        if message.length > self.most or self.signed and not self.accepts(path, payload, model, client):
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
        plain.body = message.body
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
        cdef Py_ssize_t size = self.message.first
        cdef Path path = self.last_path
        cdef bytes line, component = None
        cdef Header *header
        if self.message.places[COMPONENT] >= 0:
            header = &self.message.headers[self.message.places[COMPONENT]]
            if header.value_size > SHORT:
                return None
            component = text(header.value, header.value_size)
        if (path is None or component != path.component or PyBytes_GET_SIZE(path.line) != size
                or memcmp(PyBytes_AS_STRING(data), PyBytes_AS_STRING(path.line), size) != 0):
            line = data[:size]
            key = line if component is None else (line, component)
            path = self.paths.get(key)
            if path is None:
                found = self.way.path(line)
                if found is None:
                    return None
                path = Path.__new__(Path)
                path.line = line
                path.component = component
                path.endpoint, path.target = found
                if len(self.paths) >= MOST_KEPT:
                    self.paths.clear()
                self.paths[key] = path
            self.last_path = path
        table = self.routes.table
        if table is not self.table:
            self.table = table
            self.tables += 1
        if path.seen != self.tables:
            path.seen = self.tables
            route = table.endpoints.get(path.endpoint)
            if route is not None and path.component is not None:
                route = self.way.component(route, path.component)
            self.look_up(path, route)
        return path if path.plain else None

    cdef int look_up(self, Path path, route) except -1:
        """Note what is to be known of a route."""
        if route is not path.route:
            path.route = route
            path.plain = route is not None and self.way.is_plain(route)
            path.only = self.way.only(route) if path.plain else None
            path.place = self.place_of(path.only[1]) if path.only is not None else None
            path.many = path.plain and self.way.has_many_models(route)
        return 0

    # -- the numbers ---------------------------------------------------------------------------------------------------

    cdef int count(self, str endpoint, route, variant, double model, double overhead) except -1:
        """Count an answer; its times in seconds."""
        cdef str component = route.component
        instances = len(variant.targets)
        if component:
            self.tally(("", "", component)).add(instances, model, overhead)
            instances = 0  # copies are no instances
        self.tally((endpoint, variant.name, "")).add(instances, model, overhead)
        return 0

    cdef Tally tally(self, tuple whose):
        cdef Tally tally = self.tallies.get(whose)
        if tally is None:
            tally = self.tallies[whose] = Tally(whose)
        return tally

    def successes(self):
        """Hand over what was counted since the meter asked last."""
        tallies, self.tallies = self.tallies, {}
        return [(<Tally> tally).told() for tally in tallies.values()]

    # -- the signature -----------------------------------------------------------------------------------------------

    cdef bint accepts(self, Path path, const unsigned char *payload, bytes model, client) except -1:
        """Tell whether somebody who was seen before signed this request, and may do so."""
        cdef Message *message = &self.message
        cdef Header *header
        cdef Key key
        cdef bytes stamp
        cdef Py_ssize_t size
        cdef unsigned char digest[64]
        cdef unsigned char made[64]
        if message.places[AUTHORIZATION] < 0 or message.places[DATE] < 0:
            return False
        header = &message.headers[message.places[AUTHORIZATION]]
        if header.value_size < 128:
            return False
        key = self.key_of(header.value, header.value_size - 64)
        if key is None or not self.same_token(key):
            return False
        stamp = self.current(key)
        if stamp is None:
            return False
        write_hash(payload, message.length, digest)
        if message.places[HASH] >= 0:
            header = &message.headers[message.places[HASH]]
            if header.value_size != 64 or memcmp(header.value, digest, 64) != 0:
                return False
        size = self.canonical_request(key, path.target, digest)
        if size == 0:
            return False
        write_signature(key, stamp, self.canonical, size, made)
        header = &message.headers[message.places[AUTHORIZATION]]
        if not equal(header.value + header.value_size - 64, made):
            return False
        if key.owner:
            return True
        agent = b""
        if message.places[AGENT] >= 0:
            header = &message.headers[message.places[AGENT]]
            agent = text(header.value, header.value_size)
        return self.way.may(key.signer, path.endpoint, agent, model, client)

    cdef Key key_of(self, const unsigned char *start, Py_ssize_t size):
        """Give what is known of an Authorization header without its signature, if its key is still one."""
        cdef Key key = self.last_key
        cdef bytes prefix
        if (key is None or PyBytes_GET_SIZE(key.prefix) != size
                or memcmp(start, PyBytes_AS_STRING(key.prefix), size) != 0):
            prefix = text(start, size)
            key = self.keys.get(prefix)
        else:
            prefix = key.prefix
        if key is not None and key.owner:  # it cannot be taken away
            self.last_key = key
            return key
        signer = self.way.signer(prefix)
        if signer is None:
            return None
        if key is None or key.signer is not signer:
            key = Key.__new__(Key)
            key.prefix = prefix
            key.signer = signer
            key.signed = signer.signed
            key.signed_headers = signer.signed_headers
            key.token = signer.token
            key.scope = signer.scope.encode()
            inner, outer = signer.key.pads
            key.prepare(inner, outer)
            key.owner = self.way.is_owner(signer)
            if len(self.keys) >= MOST_KEPT:
                self.keys.clear()
            self.keys[prefix] = key
        self.last_key = key
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

    cdef Py_ssize_t canonical_request(self, Key key, bytes target, const unsigned char *digest) except -1:
        """Assemble it and give its size; 0 where a header that must be signed is not, or a signed one is not here."""
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
                return 0
            room -= size + message.headers[i].value_size + 2
            if room < 0:
                return 0
            signed[i] = True
            here = put(here, wanted, size)
            here[0] = 58
            here = put(here + 1, message.headers[i].value, message.headers[i].value_size)
            here[0] = 10
            here += 1
        for i in range(message.count):  # unsigned, it steers nothing
            if not signed[i] and must_be_signed(&message.headers[i]):
                return 0
        here[0] = 10
        here = put_bytes(here + 1, key.signed_headers)
        here[0] = 10
        here = put(here + 1, digest, 64)
        return here - self.canonical

    # -- the container's request ---------------------------------------------------------------------------------------

    cdef bytes request(self, bytes beginning, const unsigned char *payload):
        """Write the container's request as `Passage` does."""
        cdef Message *message = &self.message
        cdef bytes length = b"\r\nContent-Length: %d\r\n\r\n" % message.length
        cdef Py_ssize_t size = PyBytes_GET_SIZE(beginning) + PyBytes_GET_SIZE(length) + message.length
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
        put(here, payload, message.length)
        return made


include "plain.pxi"
