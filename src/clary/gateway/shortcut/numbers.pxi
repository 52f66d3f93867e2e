# Numbers, added up as they come: what is put off makes those wait who come when it is due.

cdef double BUCKET = GROWTH
cdef long ZERO = OFFSET


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
    """What was counted of one variant, or of an inference component."""
    cdef tuple whose
    """The meter's key."""
    cdef dict instances
    cdef Latencies model, overhead

    def __cinit__(self, tuple whose):
        self.whose = whose
        self.instances = {}
        self.model, self.overhead = Latencies(), Latencies()

    cdef int add(self, instances, double model, double overhead) except -1:
        """Count an answer; its times in seconds."""
        self.instances[instances] = self.instances.get(instances, 0) + 1
        if model > 0.0:
            self.model.add(model * 1e6)
        self.overhead.add(overhead * 1e6)
        return 0

    cdef told(self):
        return Successes(self.whose, self.instances, self.model.statistics(), self.overhead.statistics())
