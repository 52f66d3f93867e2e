# A message's head: its lines are found, and each header is known by a number.

cdef enum:
    MOST_HEAD = 16 * 1024
    MOST_HEADERS = 40
    NAMES_SIZE = 1024

cdef enum:  # what a header is
    OTHER, LENGTH, AUTHORIZATION, HOST, TYPE, ACCEPT, ATTRIBUTES, INFERENCE_ID, DATE, HASH, TOKEN, AGENT, CONNECTION,
    MODEL, COMPONENT, FOREIGN  # one that only the long way knows what to do with

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
    elif size == 36:
        if same(name, b"x-amzn-sagemaker-inference-component", 36):
            return COMPONENT
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


cdef bint must_be_signed(Header *header) noexcept:
    """Tell whether a header counts only if it is signed; `x-amzn-trace-id`, which balancers on the way add, is none."""
    return header.name_size >= 6 and same(header.name, b"x-amz-", 6) or (
        header.name_size >= 17 and same(header.name, b"x-amzn-sagemaker-", 17)
    )
