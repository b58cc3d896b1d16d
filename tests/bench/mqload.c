/*
 * mqload - a small, precise MQTT 3.1.1 / 5.0 load generator.
 *
 *   cc -O2 -std=c11 -Wall -Wextra -o mqload mqload.c
 *   cc -O2 -std=c11 -Wall -Wextra -DWITH_TLS -o mqload-tls mqload.c -lssl -lcrypto
 *
 * One file, one thread, epoll, libc only (and OpenSSL for --tls).  It is written to need far less CPU
 * than any broker: PUBLISH packets are encoded once and patched (packet id,
 * sequence, time), written in batches of up to 64 KiB, and what comes back is
 * read in large blocks and parsed no further than needed.
 *
 * Payload layout (so the least payload is 16 bytes), both little endian:
 *     u64  publisher index << 32 | per-publisher sequence number
 *     u64  send time, CLOCK_MONOTONIC ns (`rate`: the INTENDED send time)
 *
 * What is counted (per subscriber and publisher, with a bitmap over sequences):
 *     received      distinct messages
 *     duplicates    a message whose sequence had been received before
 *     out_of_order  a message that came after one with a higher sequence
 *     lost          expected - received
 *
 * A measured phase ends when everything expected arrived and every QoS 1/2
 * handshake is over; or --quiet seconds after the last progress (loss); or at
 * --timeout.  Rates are taken from the first publish to the last message
 * received, so waiting for lost messages does not lower them.
 *
 * Exit status: 0 complete, 1 loss/timeout/protocol error, 2 could not be run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

#define NSEC 1000000000ull
#define MAX_PIDS 16
#define CONNS_PER_SOURCE 15000 /* then the next 127.0.0.x is bound */
#define SUB_PIPELINE 64        /* unacknowledged SUBSCRIBE packets in `subs` */

/* ------------------------------------------------------------------ types */

enum { PKT_CONNECT = 1, PKT_CONNACK, PKT_PUBLISH, PKT_PUBACK, PKT_PUBREC,
       PKT_PUBREL, PKT_PUBCOMP, PKT_SUBSCRIBE, PKT_SUBACK, PKT_UNSUBSCRIBE,
       PKT_UNSUBACK, PKT_PINGREQ, PKT_PINGRESP, PKT_DISCONNECT };

enum role { ROLE_IDLE, ROLE_PUB, ROLE_SUB };
enum state { ST_NEW, ST_CONNECTING, ST_CONNACK, ST_READY, ST_CLOSED };
enum pid_state { PID_FREE, PID_SENT, PID_RELEASED };

struct conn;

struct pub {
    struct conn *c;
    uint8_t *tmpl;                     /* the encoded PUBLISH packet */
    uint32_t tlen, pid_off, pl_off;    /* its length; where id and payload are */
    uint32_t var_off;                  /* 7 digits of the topic to patch; 0: none */
    uint32_t id;
    uint64_t sent, limit;              /* limit: may be sent by now */
    uint64_t delivered;                /* deliveries seen of this publisher */
    uint32_t inflight, window;         /* QoS 1/2 */
    uint16_t next_pid;
    uint8_t *pids;                     /* enum pid_state for each id */
    bool e2e_blocked, queued;          /* waits for deliveries; is on the wake list */
};

struct sub {
    struct conn *c;
    uint32_t track_base, first_pub, npubs; /* whose messages come here */
    uint32_t unreleased;               /* QoS 2: PUBREC sent, no PUBREL yet */
    uint8_t *held;                     /* bitmap of those packet ids */
};

/* What WebSocket adds to a connection. */
struct ws {
    bool open;                         /* the server has answered 101 */
    uint8_t *out;                      /* frames: bytes [head, tail) wait to be written */
    uint32_t head, tail, cap;
    uint8_t fhead[10], fhave;          /* header of the frame that comes in */
    uint64_t left;                     /* what is still to come of its payload */
};

struct track { uint64_t next; uint8_t *bits; }; /* one per (subscriber, publisher) */

struct conn {
    int fd;
    uint8_t role, state, want_out;
    uint32_t idx;
    uint8_t *rem;                      /* incomplete packet kept for the next read */
    uint32_t rem_len, rem_cap;
    uint8_t *out;                      /* bytes [ohead, otail) wait to be written */
    uint32_t ohead, otail, ocap;
    struct ws *ws;                     /* --ws: frames in both directions */
    uint64_t t_start;                  /* when connect() was called */
    union { struct pub *pub; struct sub *sub; } u;
#ifdef WITH_TLS
    SSL *tls;
    bool shaking;                      /* the handshake waits for the broker */
#endif
};

/* Log-linear histogram of nanoseconds: 128 steps an octave, error below 0.8 %. */
#define H_SUB 128
#define H_SIZE (H_SUB * 58)
struct hist { uint64_t n, max, b[H_SIZE]; };

struct proc_use { pid_t pid; uint64_t cpu_ns; double user, sys; uint64_t rss_kb, peak_kb; };
struct usage { int n; struct proc_use p[256]; double self_s; };

/* ---------------------------------------------------------------- globals */

static struct {                        /* options */
    const char *host, *scenario, *label;
    int port, proto, pub_qos, sub_qos, keepalive, concurrency, sub_batch;
    uint32_t payload, window, e2e_window, batch, hold;
    uint64_t count;
    uint32_t pubs, subs, conns, filters, wild, topics;
    double rate, duration, warmup, timeout, quiet;
    bool json, paired, raw, cleanup, spin, persistent, ws, ws_merge, tls;
    uint32_t lazy;
    pid_t pids[MAX_PIDS];
    int npids;
} O = { .host = "127.0.0.1", .port = 1883, .proto = 4, .scenario = "pipe", .label = "",
        .payload = 64, .window = 1000, .batch = 65536, .count = 0, .concurrency = 64,
        .sub_batch = 100, .wild = 5, .rate = 1, .duration = 10, .warmup = 1, .timeout = 60, .quiet = 3 };

static int ep;
static uint32_t run_id;
static struct sockaddr_in addr;
static struct conn *conns;
static struct pub *pubs;
static struct sub *subs;
static struct track *tracks;
static uint32_t nconns, npubs, nsubs;
static uint8_t *rbuf;
static size_t rbuf_size;
static struct pub **wake;
static uint32_t nwake;

static struct {                        /* progress and results */
    uint32_t opening, next_open, ready, failed, disconnects;
    uint64_t suback_filters, sub_failed, sub_downgraded;
    uint64_t sub_next, sub_outstanding; /* `subs`: filters sent, packets unacked */
    uint64_t sent, received, expected, fan;
    uint64_t dup, ooo, foreign, retained_seen, dup_flag;
    uint64_t nack, proto_err, pingresp;
    uint64_t inflight, unreleased;
    uint64_t t_first, t_last, t_sent, t_progress;
    uint64_t rate_t0, sched, sched_total; /* `rate`: the schedule */
    double interval;
    bool rate_on, track_order, measuring, timed_out;
    int last_reason;                   /* v5 DISCONNECT or failed CONNACK code */
    struct hist lat, conn_lat;
} S;

/* ---------------------------------------------------------------- helpers */

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "mqload: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NSEC + (uint64_t)t.tv_nsec;
}

static void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        die("out of memory");
    return p;
}

static void hist_add(struct hist *h, uint64_t v)
{
    uint32_t i;
    if (v < H_SUB) {
        i = (uint32_t)v;
    } else {
        uint32_t e = 63 - (uint32_t)__builtin_clzll(v); /* 2^e <= v, e >= 7 */
        i = (e - 6) * H_SUB + (uint32_t)((v >> (e - 7)) & (H_SUB - 1));
    }
    h->b[i < H_SIZE ? i : H_SIZE - 1]++;
    h->n++;
    if (v > h->max)
        h->max = v;
}

/* The value (us) below which a share q of the entries lies: its step's middle. */
static double hist_us(const struct hist *h, double q)
{
    uint64_t need = (uint64_t)(q * (double)h->n + 0.999999), sum = 0;
    if (!h->n)
        return 0;
    for (uint32_t i = 0; i < H_SIZE; i++) {
        sum += h->b[i];
        if (sum >= need && sum) {
            double v = i;
            if (i >= H_SUB) {
                uint32_t e = i / H_SUB + 6;
                double step = (double)(1ull << (e - 7));
                v = (double)(H_SUB + i % H_SUB) * step + step / 2;
            }
            if (v > (double)h->max)
                v = (double)h->max;
            return v / 1000;
        }
    }
    return (double)h->max / 1000;
}

/* ------------------------------------------- the broker's CPU and memory */

static bool proc_stat(pid_t pid, pid_t *ppid, double *user, double *sys)
{
    char path[64], buf[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    buf[n] = 0;
    char *p = strrchr(buf, ')');       /* the name may hold anything */
    int pp;
    unsigned long ut, st;
    if (!p || sscanf(p + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                     &pp, &ut, &st) != 3)
        return false;
    double hz = (double)sysconf(_SC_CLK_TCK);
    *ppid = pp;
    *user = (double)ut / hz;
    *sys = (double)st / hz;
    return true;
}

static uint64_t status_kb(pid_t pid, const char *key)
{
    char path[64], line[256];
    uint64_t v = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) {
            v = strtoull(line + strlen(key), NULL, 10);
            break;
        }
    fclose(f);
    return v;
}

/* Use of the --broker-pid processes and all their living descendants. The CPU
 * time is the kernel's process clock (ns, all threads, also ended ones); the
 * split in user and system is in 10 ms ticks. */
static void usage_take(struct usage *u)
{
    memset(u, 0, sizeof *u);
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    u->self_s = (double)ru.ru_utime.tv_sec + (double)ru.ru_utime.tv_usec / 1e6 +
                (double)ru.ru_stime.tv_sec + (double)ru.ru_stime.tv_usec / 1e6;
    if (!O.npids)
        return;
    static struct { pid_t pid, ppid; bool in; } t[4096];
    int n = 0;
    DIR *d = opendir("/proc");
    struct dirent *e;
    while (d && (e = readdir(d)) && n < 4096) {
        double a, b;
        if (isdigit((unsigned char)e->d_name[0]) &&
            proc_stat(t[n].pid = atoi(e->d_name), &t[n].ppid, &a, &b)) {
            t[n].in = false;
            for (int i = 0; i < O.npids; i++)
                t[n].in |= t[n].pid == O.pids[i];
            n++;
        }
    }
    if (d)
        closedir(d);
    for (bool more = true; more;) {    /* add children until none is new */
        more = false;
        for (int i = 0; i < n; i++)
            for (int j = 0; !t[i].in && j < n; j++)
                if (t[j].in && t[i].ppid == t[j].pid)
                    t[i].in = more = true;
    }
    for (int i = 0; i < n && u->n < 256; i++) {
        if (!t[i].in)
            continue;
        struct proc_use *p = &u->p[u->n];
        pid_t pp;
        clockid_t ck;
        struct timespec ts;
        p->pid = t[i].pid;
        if (!proc_stat(p->pid, &pp, &p->user, &p->sys))
            continue;
        if (!clock_getcpuclockid(p->pid, &ck) && !clock_gettime(ck, &ts))
            p->cpu_ns = (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
        else
            p->cpu_ns = (uint64_t)((p->user + p->sys) * 1e9);
        p->rss_kb = status_kb(p->pid, "VmRSS:");
        p->peak_kb = status_kb(p->pid, "VmHWM:");
        u->n++;
    }
}

struct delta { double cpu, user, sys, self; uint64_t rss0_kb, rss1_kb, peak_kb; };

static struct delta usage_delta(const struct usage *a, const struct usage *b)
{
    struct delta d = { .self = b->self_s - a->self_s };
    for (int i = 0; i < a->n; i++)
        d.rss0_kb += a->p[i].rss_kb;
    for (int i = 0; i < b->n; i++) {
        const struct proc_use *q = &b->p[i], zero = { 0 }, *p = &zero;
        for (int j = 0; j < a->n; j++)
            if (a->p[j].pid == q->pid)
                p = &a->p[j];
        d.cpu += (double)(q->cpu_ns - p->cpu_ns) / 1e9;
        d.user += q->user - p->user;
        d.sys += q->sys - p->sys;
        d.rss1_kb += q->rss_kb;
        d.peak_kb += q->peak_kb;
    }
    return d;
}

/* --------------------------------------------------------- output buffers */

static uint8_t *out_room(struct conn *c, uint32_t need)
{
    if (c->otail + need > c->ocap) {
        uint32_t used = c->otail - c->ohead;
        if (c->ohead && used + need <= c->ocap) {
            memmove(c->out, c->out + c->ohead, used);
        } else {
            uint32_t cap = c->ocap ? c->ocap : 256;
            while (cap < used + need)
                cap *= 2;
            uint8_t *p = malloc(cap);
            if (!p)
                die("out of memory");
            if (used)
                memcpy(p, c->out + c->ohead, used);
            free(c->out);
            c->out = p;
            c->ocap = cap;
        }
        c->ohead = 0;
        c->otail = used;
    }
    uint8_t *p = c->out + c->otail;
    c->otail += need;
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint32_t v)
{
    do {
        *p++ = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    return p;
}

static uint8_t *put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *put_str(uint8_t *p, const char *s)
{
    size_t n = strlen(s);
    p = put_u16(p, (uint32_t)n);
    memcpy(p, s, n);
    return p + n;
}

/* -------------------------------------------------------------- WebSocket */

static const char upgrade[] = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: bXFsb2FkIG1xbG9hZCBtcQ==\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

static const uint8_t ws_key[8] = { 0x5a, 0xc3, 0x17, 0x9e, 0x5a, 0xc3, 0x17, 0x9e };

static void ws_frame(struct ws *w, const uint8_t *data, uint32_t n)
{
    uint8_t *p = w->out + w->tail;
    *p++ = 0x82;
    if (n < 126) {
        *p++ = (uint8_t)(128 | n);
    } else if (n < 65536) {
        *p++ = 128 | 126;
        *p++ = (uint8_t)(n >> 8);
        *p++ = (uint8_t)n;
    } else {
        *p++ = 128 | 127;
        for (int i = 7; i >= 0; i--)
            *p++ = i < 4 ? (uint8_t)(n >> 8 * i) : 0;
    }
    memcpy(p, ws_key, 4);
    p += 4;
    uint64_t key, v;
    uint32_t i = 0;
    memcpy(&key, ws_key, 8);
    for (; i + 8 <= n; i += 8) {
        memcpy(&v, data + i, 8);
        v ^= key;
        memcpy(p + i, &v, 8);
    }
    for (; i < n; i++)
        p[i] = data[i] ^ ws_key[i & 7];
    w->tail = (uint32_t)(p + n - w->out);
}

/* Make frames of whole packets: one for each, as clients do; or, with --ws-merge, of them all. */
static void ws_wrap(struct ws *w, const uint8_t *data, uint32_t n)
{
    uint32_t need = 8 * n + 14;        /* the least packet has 2 bytes, its frame 8 */
    if (need > w->cap) {
        free(w->out);
        if (!(w->out = malloc(w->cap = need)))
            die("out of memory");
    }
    w->head = w->tail = 0;
    if (O.ws_merge) {
        ws_frame(w, data, n);
        return;
    }
    for (uint32_t off = 0; off < n;) {
        uint32_t rl = 0, k = 1;
        for (int shift = 0; k < 5; shift += 7) {
            uint8_t b = data[off + k++];
            rl |= (uint32_t)(b & 127) << shift;
            if (!(b & 128))
                break;
        }
        ws_frame(w, data + off, k + rl);
        off += k + rl;
    }
}

/* Take frames apart, in place; returns the bytes of MQTT. Control frames are passed over. */
static size_t ws_unwrap(struct ws *w, uint8_t *data, size_t n)
{
    size_t in = 0, out = 0;
    while (in < n) {
        if (w->left) {
            size_t k = n - in < w->left ? n - in : (size_t)w->left;
            if (!(w->fhead[0] & 8)) {
                memmove(data + out, data + in, k);
                out += k;
            }
            in += k;
            w->left -= k;
            continue;
        }
        w->fhead[w->fhave++] = data[in++];
        if (w->fhave < 2)
            continue;
        uint8_t l = w->fhead[1], extra = l == 126 ? 2 : l == 127 ? 8 : 0;
        if (w->fhave < 2 + extra)
            continue;
        w->left = extra ? 0 : l;
        for (int i = 0; i < extra; i++)
            w->left = w->left << 8 | w->fhead[2 + i];
        w->fhave = 0;
    }
    return out;
}

static void put_ack(struct conn *c, uint8_t first, uint32_t pid)
{
    uint8_t *p = out_room(c, 4);
    p[0] = first;
    p[1] = 2;
    put_u16(p + 2, pid);
}

static void set_mask(struct conn *c, bool out)
{
    if (c->want_out == out)
        return;
    struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    c->want_out = out;
}

static void conn_close(struct conn *c)
{
    if (c->state == ST_CLOSED)
        return;
    if (c->state == ST_READY)
        S.disconnects++;
    else
        S.failed++, S.opening--;
#ifdef WITH_TLS
    SSL_free(c->tls);
    c->tls = NULL;
#endif
    close(c->fd);
    c->fd = -1;
    c->state = ST_CLOSED;
    free(c->out);
    free(c->rem);
    if (c->ws)
        free(c->ws->out);
    free(c->ws);
    c->ws = NULL;
    c->out = c->rem = NULL;
    c->ohead = c->otail = c->ocap = c->rem_len = c->rem_cap = 0;
}

/* ------------------------------------------------------------- publishing */

static uint64_t due_time(uint64_t j)   /* of message j over all publishers */
{
    return S.rate_t0 + (uint64_t)((double)j * S.interval);
}

static bool can_send(struct pub *p)
{
    if (p->sent >= p->limit)
        return false;
    if (O.pub_qos && (p->inflight >= p->window || p->pids[p->next_pid] != PID_FREE))
        return false;
    if (O.e2e_window && p->sent * S.fan - p->delivered >= O.e2e_window * S.fan) {
        p->e2e_blocked = true;
        return false;
    }
    return true;
}

/* The topic number of the n-th message where topics vary. */
static uint32_t topic_of(uint64_t n)
{
    return !strcmp(O.scenario, "subs") ? (uint32_t)(n * 7919 % O.topics) : (uint32_t)n;
}

static void put_publish(struct pub *p, uint64_t ts)
{
    uint8_t *b = out_room(p->c, p->tlen);
    memcpy(b, p->tmpl, p->tlen);
    if (O.pub_qos) {
        put_u16(b + p->pid_off, p->next_pid);
        p->pids[p->next_pid] = PID_SENT;
        p->next_pid = (uint16_t)(p->next_pid == 65535 ? 1 : p->next_pid + 1);
        p->inflight++;
        S.inflight++;
    }
    if (p->var_off) {
        uint32_t v = topic_of(p->sent);
        for (int i = 6; i >= 0; i--, v /= 10)
            b[p->var_off + (uint32_t)i] = (uint8_t)('0' + v % 10);
    }
    uint64_t seq = (uint64_t)p->id << 32 | p->sent;
    memcpy(b + p->pl_off, &seq, 8);
    memcpy(b + p->pl_off + 8, &ts, 8);
    p->sent++;
    S.sent++;
}

#ifdef WITH_TLS
static SSL_CTX *tls_context;

static void tls_open(struct conn *c)
{
    if (!O.tls)
        return;
    if (!tls_context) {                /* the broker is not verified: that is not measured */
        tls_context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls_context,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                         SSL_MODE_RELEASE_BUFFERS);
    }
    c->tls = SSL_new(tls_context);
    if (!c->tls || !SSL_set_fd(c->tls, c->fd))
        die("TLS can't be had");
    SSL_set_connect_state(c->tls);
    c->shaking = true;
}

/* What an SSL function has returned, as read and write would say it. */
static ssize_t tls_result(struct conn *c, int r)
{
    if (r > 0)
        return r;
    int e = SSL_get_error(c->tls, r);
    errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return e == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static bool tls_agreed(struct conn *c)
{
    if (!c->tls || !c->shaking)
        return true;
    if (tls_result(c, SSL_do_handshake(c->tls)) <= 0)
        return false;
    c->shaking = false;
    return true;
}

/* So many bytes as there are, over records. */
static ssize_t io_read(struct conn *c, uint8_t *p, size_t n)
{
    if (!c->tls)
        return read(c->fd, p, n);
    size_t got = 0;
    while (got < n) {
        ssize_t r = tls_result(c, SSL_read(c->tls, p + got, (int)(n - got)));
        if (r <= 0)
            return got ? (ssize_t)got : r;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static ssize_t io_write(struct conn *c, const uint8_t *p, size_t n)
{
    if (!c->tls)
        return write(c->fd, p, n);
    size_t put = 0;
    while (put < n) {                  /* a record each time */
        ssize_t w = tls_result(c, SSL_write(c->tls, p + put, (int)(n - put)));
        if (w <= 0)
            return put ? (ssize_t)put : w;
        put += (size_t)w;
    }
    return (ssize_t)put;
}

static bool io_pending(const struct conn *c)
{
    return c->tls && SSL_pending(c->tls) > 0;
}
#else
static void tls_open(struct conn *c) { (void)c; }
static bool tls_agreed(struct conn *c) { (void)c; return true; }
static bool io_pending(const struct conn *c) { (void)c; return false; }
static ssize_t io_read(struct conn *c, uint8_t *p, size_t n) { return read(c->fd, p, n); }
static ssize_t io_write(struct conn *c, const uint8_t *p, size_t n) { return write(c->fd, p, n); }
#endif

/* Write bytes [*head, *tail); false if the connection is lost. */
static bool write_some(struct conn *c, const uint8_t *data, uint32_t *head, uint32_t *tail)
{
    ssize_t w = io_write(c, data + *head, *tail - *head);
    if (w < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            conn_close(c);
            return false;
        }
    } else {
        *head += (uint32_t)w;
    }
    if (*head == *tail)
        *head = *tail = 0;
    return true;
}

/* Write what waits; ask for EPOLLOUT while there is (or could be) more. */
static void flush(struct conn *c)
{
    if (!tls_agreed(c)) {
        if (errno != EAGAIN)
            conn_close(c);
        else
            set_mask(c, false);        /* conn_read goes on when the broker has answered */
        return;
    }
    struct ws *w = c->ws;
    if (w && w->open && w->head == w->tail && c->otail > c->ohead) {
        ws_wrap(w, c->out + c->ohead, c->otail - c->ohead);
        c->ohead = c->otail = 0;
    }
    if (w && w->tail > w->head) {
        if (!write_some(c, w->out, &w->head, &w->tail))
            return;
    } else if (c->otail > c->ohead && (!w || !w->open)) {
        if (!write_some(c, c->out, &c->ohead, &c->otail))
            return;
    }
    set_mask(c, c->otail > c->ohead || (w && w->tail > w->head) ||
                (c->role == ROLE_PUB && c->u.pub && can_send(c->u.pub)));
}

/* Encode messages as far as the windows and the batch allow, then write. */
static void pump(struct pub *p)
{
    struct conn *c = p->c;
    if (c->state != ST_READY)
        return;
    uint64_t now = 0;
    while (c->otail - c->ohead < O.batch && can_send(p)) {
        if (!now)
            now = now_ns();
        put_publish(p, S.rate_on ? due_time(p->sent * npubs + p->id) : now);
    }
    if (now) {
        if (!S.t_first)
            S.t_first = now;
        S.t_sent = S.t_progress = now;
    }
    flush(c);
}

static void wake_later(struct pub *p)
{
    if (!p->queued) {
        p->queued = true;
        wake[nwake++] = p;
    }
}

/* ---------------------------------------------------------------- parsing */

/* Variable byte integer at p; the bytes used, or 0 when it is not complete. */
static size_t get_varint(const uint8_t *p, size_t avail, uint32_t *v)
{
    uint32_t r = 0;
    for (size_t i = 0; i < 4 && i < avail; i++) {
        r |= (uint32_t)(p[i] & 127) << (7 * i);
        if (!(p[i] & 128)) {
            *v = r;
            return i + 1;
        }
    }
    return 0;
}

static void on_message(struct sub *s, const uint8_t *pl, uint64_t now)
{
    uint64_t seq, ts;
    memcpy(&seq, pl, 8);
    memcpy(&ts, pl + 8, 8);
    uint32_t p = (uint32_t)(seq >> 32) - s->first_pub;
    uint64_t n = seq & 0xffffffff;
    if (p >= s->npubs || n >= O.count) {
        S.foreign++;
        return;
    }
    struct track *t = &tracks[s->track_base + p];
    uint8_t bit = (uint8_t)(1u << (n & 7));
    if (t->bits[n >> 3] & bit) {
        S.dup++;
        return;
    }
    t->bits[n >> 3] |= bit;
    if (n >= t->next)
        t->next = n + 1;
    else
        S.ooo++;
    S.received++;
    S.t_last = now;
    struct pub *pb = &pubs[p + s->first_pub];
    pb->delivered++;
    if (pb->e2e_blocked) {
        pb->e2e_blocked = false;
        wake_later(pb);
    }
    if (!S.rate_on || ts >= S.rate_t0 + (uint64_t)(O.warmup * 1e9))
        hist_add(&S.lat, now > ts ? now - ts : 0);
}

static void on_publish(struct conn *c, uint8_t first, const uint8_t *b, uint32_t len, uint64_t now)
{
    uint32_t qos = first >> 1 & 3, off, props;
    struct sub *s = c->u.sub;
    if (c->role != ROLE_SUB || !s || len < 2)
        goto bad;
    off = 2 + ((uint32_t)b[0] << 8 | b[1]);
    if (off + (qos ? 2 : 0) > len)
        goto bad;
    if (qos) {
        uint32_t pid = (uint32_t)b[off] << 8 | b[off + 1];
        off += 2;
        if (qos == 1) {
            put_ack(c, PKT_PUBACK << 4, pid);
        } else {
            put_ack(c, PKT_PUBREC << 4, pid);
            if (!s->held)
                s->held = xcalloc(8192, 1);
            uint8_t bit = (uint8_t)(1u << (pid & 7));
            if (s->held[pid >> 3] & bit) { /* sent again before PUBREL */
                S.dup++;
                return;
            }
            s->held[pid >> 3] |= bit;
            s->unreleased++;
            S.unreleased++;
        }
    }
    if (O.proto == 5) {
        size_t k = off < len ? get_varint(b + off, len - off, &props) : 0;
        if (!k)
            goto bad;
        off += (uint32_t)k + props;
    }
    S.dup_flag += first >> 3 & 1;
    S.retained_seen += first & 1;
    if (off + 16 > len) {
        S.foreign++;
        return;
    }
    on_message(s, b + off, now);
    return;
bad:
    S.proto_err++;
}

static void on_connack(struct conn *c, const uint8_t *b, uint32_t len, uint64_t now)
{
    if (c->state != ST_CONNACK || len < 2 || b[1]) {
        S.last_reason = len > 1 ? b[1] : -1;
        conn_close(c);
        return;
    }
    if (O.proto == 5 && c->role == ROLE_PUB && c->u.pub) {
        /* Only Receive Maximum matters here: it bounds our window. */
        uint32_t plen, off = 2;
        size_t k = get_varint(b + off, len - off, &plen);
        off += (uint32_t)k;
        while (k && off < len) {
            uint8_t id = b[off++];
            if (id == 0x21 && off + 2 <= len) {
                uint32_t rm = (uint32_t)b[off] << 8 | b[off + 1];
                if (rm < c->u.pub->window)
                    c->u.pub->window = rm;
            }
            if (id == 0x21 || id == 0x22 || id == 0x13)
                off += 2;
            else if (id == 0x11 || id == 0x27)
                off += 4;
            else if (id == 0x24 || id == 0x25 || id == 0x28 || id == 0x29 || id == 0x2a)
                off += 1;
            else if ((id == 0x12 || id == 0x1f || id == 0x1a || id == 0x1c || id == 0x15 ||
                      id == 0x16) && off + 2 <= len)
                off += 2 + ((uint32_t)b[off] << 8 | b[off + 1]);
            else
                break;                 /* user properties etc.: good enough */
        }
    }
    c->state = ST_READY;
    S.opening--;
    S.ready++;
    S.t_last = now;
    hist_add(&S.conn_lat, now - c->t_start);
}

static void send_filters(struct conn *c);

static void on_suback(struct conn *c, const uint8_t *b, uint32_t len)
{
    uint32_t off = 2, props;
    if (O.proto == 5) {
        size_t k = len > 2 ? get_varint(b + 2, len - 2, &props) : 0;
        if (!k) {
            S.proto_err++;
            return;
        }
        off += (uint32_t)k + props;
    }
    for (; off < len; off++) {
        S.suback_filters++;
        if (b[off] > 2)
            S.sub_failed++;
        else if (b[off] < O.sub_qos)
            S.sub_downgraded++;
    }
    if (S.sub_outstanding) {
        S.sub_outstanding--;
        send_filters(c);
    }
}

static void on_packet(struct conn *c, uint8_t first, const uint8_t *b, uint32_t len, uint64_t now)
{
    uint32_t pid = len >= 2 ? (uint32_t)b[0] << 8 | b[1] : 0;
    struct pub *p = c->role == ROLE_PUB ? c->u.pub : NULL;
    switch (first >> 4) {
    case PKT_PUBLISH:
        on_publish(c, first, b, len, now);
        return;
    case PKT_PUBACK:
    case PKT_PUBCOMP:
        if (!p || !p->pids || p->pids[pid] !=
            (first >> 4 == PKT_PUBACK && O.pub_qos == 1 ? PID_SENT : PID_RELEASED)) {
            S.proto_err++;
            return;
        }
        S.nack += len > 2 && b[2] >= 128;
        p->pids[pid] = PID_FREE;
        p->inflight--;
        S.inflight--;
        return;
    case PKT_PUBREC:
        if (!p || !p->pids || p->pids[pid] != PID_SENT) {
            S.proto_err++;
            return;
        }
        if (len > 2 && b[2] >= 128) {  /* refused: the exchange ends here */
            S.nack++;
            p->pids[pid] = PID_FREE;
            p->inflight--;
            S.inflight--;
            return;
        }
        p->pids[pid] = PID_RELEASED;
        put_ack(c, PKT_PUBREL << 4 | 2, pid);
        return;
    case PKT_PUBREL:
        if (c->role == ROLE_SUB && c->u.sub && c->u.sub->held) {
            struct sub *s = c->u.sub;
            uint8_t bit = (uint8_t)(1u << (pid & 7));
            if (s->held[pid >> 3] & bit) {
                s->held[pid >> 3] &= (uint8_t)~bit;
                s->unreleased--;
                S.unreleased--;
            }
        }
        put_ack(c, PKT_PUBCOMP << 4, pid);
        return;
    case PKT_CONNACK:
        on_connack(c, b, len, now);
        return;
    case PKT_SUBACK:
        on_suback(c, b, len);
        return;
    case PKT_PINGRESP:
        S.pingresp++;
        return;
    case PKT_DISCONNECT:
        S.last_reason = len ? b[0] : 0;
        return;
    default:
        S.proto_err++;
    }
}

static void send_connect(struct conn *c);

static void conn_read(struct conn *c)
{
    if (!tls_agreed(c)) {
        if (errno != EAGAIN)
            conn_close(c);
        return;
    }
    size_t have = c->rem_len;
    if (have)
        memcpy(rbuf, c->rem, have);
    ssize_t r = io_read(c, rbuf + have, rbuf_size - have);
    if (r <= 0) {
        if (r == 0 || (errno != EAGAIN && errno != EINTR))
            conn_close(c);
        else if (c->otail > c->ohead)
            flush(c);                  /* the handshake of TLS is done */
        return;
    }
    uint64_t now = now_ns();
    size_t len = have + (size_t)r, off = 0;
    S.t_progress = now;
    if (c->ws && !c->ws->open) {       /* nothing follows the answer: the client speaks first */
        rbuf[len] = 0;
        if (strstr((char *)rbuf, "\r\n\r\n")) {
            if (strncmp((char *)rbuf, "HTTP/1.1 101 ", 13)) {
                conn_close(c);
                return;
            }
            c->ws->open = true;
            c->rem_len = 0;
            send_connect(c);
            return;
        }
        off = 0;
        goto keep;
    }
    if (c->ws)
        len = have + ws_unwrap(c->ws, rbuf + have, (size_t)r);
    while (len - off >= 2 && c->state != ST_CLOSED) {
        uint32_t rl = rbuf[off + 1];
        size_t hl = 2;
        if (rl & 128) {
            size_t k = get_varint(rbuf + off + 1, len - off - 1, &rl);
            if (!k) {
                if (len - off >= 5) {
                    S.proto_err++;
                    conn_close(c);
                    return;
                }
                break;
            }
            hl = 1 + k;
        }
        if (len - off < hl + rl) {
            if (hl + rl > rbuf_size)
                die("packet of %u bytes is longer than expected", rl);
            break;
        }
        on_packet(c, rbuf[off], rbuf + off + hl, rl, now);
        off += hl + rl;
    }
    if (c->state == ST_CLOSED)
        return;
    size_t left;
keep:
    left = len - off;
    if (left > c->rem_cap) {
        free(c->rem);
        c->rem_cap = (uint32_t)(left * 2);
        c->rem = xcalloc(c->rem_cap, 1);
    }
    if (left)
        memcpy(c->rem, rbuf + off, left);
    c->rem_len = (uint32_t)left;
    if (c->role == ROLE_PUB && c->u.pub && S.measuring)
        pump(c->u.pub);                /* acknowledgements opened the window */
    else if (c->otail > c->ohead)
        flush(c);
}

/* ------------------------------------------------------------- connecting */

static void send_connect(struct conn *c)
{
    char id[64];
    snprintf(id, sizeof id, "mqload-%u-%u", run_id, c->idx);
    uint8_t b[128], *p = b;
    p = put_str(p, "MQTT");
    *p++ = (uint8_t)O.proto;
    /* clean session / clean start; with version 5 no session outlives its connection then */
    *p++ = O.persistent && c->role == ROLE_SUB ? 0 : 2;
    p = put_u16(p, (uint32_t)O.keepalive);
    if (O.proto == 5)
        *p++ = 0;                      /* no properties */
    p = put_str(p, id);
    uint8_t *o = out_room(c, 2 + (uint32_t)(p - b));
    o[0] = PKT_CONNECT << 4;
    o[1] = (uint8_t)(p - b);
    memcpy(o + 2, b, (size_t)(p - b));
    flush(c);
}

static void conn_open(struct conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s (ulimit -n?)", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (nconns > CONNS_PER_SOURCE && (ntohl(addr.sin_addr.s_addr) >> 24) == 127) {
        struct sockaddr_in src = { .sin_family = AF_INET };
        src.sin_addr.s_addr = htonl(0x7f000002 + c->idx / CONNS_PER_SOURCE);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&src, sizeof src))
            die("bind: %s", strerror(errno));
    }
    c->t_start = now_ns();
    c->state = ST_CONNECTING;
    S.opening++;
    if (connect(c->fd, (struct sockaddr *)&addr, sizeof addr) && errno != EINPROGRESS) {
        conn_close(c);
        return;
    }
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e))
        die("epoll_ctl: %s", strerror(errno));
    c->want_out = 1;
}

static void conn_connected(struct conn *c)
{
    int err = 0;
    socklen_t l = sizeof err;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
    if (err) {
        conn_close(c);
        return;
    }
    if (O.raw) {                       /* no MQTT handshake (relay) */
        c->state = ST_READY;
        S.opening--;
        S.ready++;
        set_mask(c, false);
        return;
    }
    c->state = ST_CONNACK;
    tls_open(c);
    if (O.ws) {
        c->ws = xcalloc(1, sizeof *c->ws);
        memcpy(out_room(c, sizeof upgrade - 1), upgrade, sizeof upgrade - 1);
        flush(c);
        return;
    }
    send_connect(c);
}

/* --------------------------------------------------------------- the loop */

/* Wait for events until `until` (ns) at the latest and handle them. */
static void step(uint64_t until)
{
    static struct epoll_event ev[512];
    uint64_t now = now_ns();
    if (S.rate_on && S.sched < S.sched_total && due_time(S.sched) < until)
        until = due_time(S.sched);
    uint64_t wait = until > now ? until - now : 0;
    if (O.spin && S.rate_on)
        wait = 0;
    struct timespec ts = { .tv_sec = (time_t)(wait / NSEC), .tv_nsec = (long)(wait % NSEC) };
    if (O.lazy && S.measuring && !S.rate_on) {
        struct timespec nap = { .tv_nsec = (long)O.lazy * 1000 };
        nanosleep(&nap, NULL);         /* let more arrive: fewer, larger reads */
    }
    int n = epoll_pwait2(ep, ev, 512, &ts, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (c->state == ST_CLOSED)
            continue;
        if (c->state == ST_CONNECTING) {
            conn_connected(c);
            continue;
        }
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            do
                conn_read(c);
            while (c->state != ST_CLOSED && io_pending(c));
        if (ev[i].events & EPOLLOUT && c->state != ST_CLOSED) {
            if (c->role == ROLE_PUB && c->u.pub && S.measuring)
                pump(c->u.pub);
            else
                flush(c);
        }
    }
    if (S.rate_on && S.sched < S.sched_total) {
        now = now_ns();
        while (S.sched < S.sched_total && due_time(S.sched) <= now) {
            struct pub *p = &pubs[S.sched++ % npubs];
            p->limit++;
            wake_later(p);
        }
    }
    while (nwake) {
        struct pub *p = wake[--nwake];
        p->queued = false;
        pump(p);
    }
}

/* Run until done() or the timeout; with `quiet`, also when nothing moved for
 * O.quiet seconds. Returns whether done() was reached. */
static bool run_until(bool (*done)(void), double timeout, bool quiet)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(timeout * 1e9);
    S.t_progress = start;
    while (!done()) {
        uint64_t now = now_ns();
        if (now >= end) {
            S.timed_out = true;
            return false;
        }
        bool scheduled = S.rate_on && S.sched < S.sched_total;
        if (quiet && !scheduled && now - S.t_progress > (uint64_t)(O.quiet * 1e9))
            return false;
        step(now + NSEC / 10 < end ? now + NSEC / 10 : end);
    }
    return true;
}

static bool done_open(void)
{
    while (S.next_open < nconns && S.opening < (uint32_t)O.concurrency)
        conn_open(&conns[S.next_open++]);
    return S.next_open == nconns && !S.opening;
}

static bool done_suback(void) { return S.suback_filters >= S.sub_next || !nsubs ||
                                       subs[0].c->state == ST_CLOSED; }
static bool done_never(void) { return false; }
static bool done_ping(void) { return S.pingresp > 0 || pubs[0].c->state == ST_CLOSED; }
static bool done_received(void) { return S.received >= S.expected; }

static bool done_measured(void)
{
    return S.received >= S.expected && S.sent >= npubs * O.count && !S.inflight && !S.unreleased;
}

static bool done_sent(void)
{
    const struct conn *c = pubs[0].c;
    return S.sent >= npubs * O.count && !S.inflight && c->otail == c->ohead &&
           (!c->ws || c->ws->tail == c->ws->head);
}

/* ------------------------------------------------------------------ setup */

static void build_template(struct pub *p, const char *topic, bool retain)
{
    uint32_t tl = (uint32_t)strlen(topic), v5 = O.proto == 5;
    uint32_t rl = 2 + tl + (O.pub_qos ? 2 : 0) + v5 + O.payload;
    p->tmpl = xcalloc(rl + 5, 1);
    uint8_t *b = p->tmpl;
    *b++ = (uint8_t)(PKT_PUBLISH << 4 | O.pub_qos << 1 | retain);
    b = put_varint(b, rl);
    char *hash = strstr((char *)memcpy(b + 2, topic, tl), "0000000");
    if (hash && hash < (char *)b + 2 + tl)
        p->var_off = (uint32_t)((uint8_t *)hash - p->tmpl);
    b = put_u16(b, tl) + tl;
    p->pid_off = (uint32_t)(b - p->tmpl);
    if (O.pub_qos)
        b += 2;
    if (v5)
        *b++ = 0;
    p->pl_off = (uint32_t)(b - p->tmpl);
    for (uint32_t i = 0; i < O.payload; i++)
        b[i] = (uint8_t)('a' + i % 26);
    p->tlen = p->pl_off + O.payload;
    p->window = O.window;
    p->next_pid = 1;
    if (O.pub_qos)
        p->pids = xcalloc(65536, 1);
}

static void put_subscribe(struct conn *c, uint32_t pid, const char *const *filters, uint32_t n)
{
    uint32_t rl = 2 + (O.proto == 5);
    for (uint32_t i = 0; i < n; i++)
        rl += 3 + (uint32_t)strlen(filters[i]);
    uint8_t *o = out_room(c, rl + 5), *start = o;
    *o++ = PKT_SUBSCRIBE << 4 | 2;
    o = put_varint(o, rl);
    o = put_u16(o, pid);
    if (O.proto == 5)
        *o++ = 0;
    for (uint32_t i = 0; i < n; i++) {
        o = put_str(o, filters[i]);
        *o++ = (uint8_t)O.sub_qos;
    }
    c->otail -= rl + 5 - (uint32_t)(o - start);
}

/* `subs`: keep SUB_PIPELINE packets of O.sub_batch filters under way. */
static void send_filters(struct conn *c)
{
    char text[1000][48];
    const char *list[1000];
    while (S.sub_next < O.filters && S.sub_outstanding < SUB_PIPELINE) {
        uint32_t n = 0, first = (uint32_t)S.sub_next;
        for (; n < (uint32_t)O.sub_batch && first + n < O.filters; n++) {
            uint32_t i = first + n;
            /* one in O.wild with + or # by turns; every topic matches one filter */
            const char *tail = i % O.wild != 3 ? "x/t" : i / O.wild % 2 ? "#" : "+/t";
            snprintf(text[n], sizeof text[n], "subs%u/%07u/%s", run_id, i, tail);
            list[n] = text[n];
        }
        put_subscribe(c, first / (uint32_t)O.sub_batch % 65535 + 1, list, n);
        S.sub_next += n;
        S.sub_outstanding++;
    }
    flush(c);
}

/* Make and open all connections: subscribers first, then publishers. */
static void make_conns(uint32_t n_sub, uint32_t n_pub, uint32_t n_idle)
{
    nsubs = n_sub;
    npubs = n_pub;
    nconns = n_sub + n_pub + n_idle;
    conns = xcalloc(nconns, sizeof *conns);
    subs = xcalloc(nsubs, sizeof *subs);
    pubs = xcalloc(npubs, sizeof *pubs);
    wake = xcalloc(npubs + 1, sizeof *wake);
    uint32_t s = 0, p = 0;
    for (uint32_t i = 0; i < nconns; i++) {
        struct conn *c = &conns[i];
        c->idx = i;
        /* raw mode: sink and source by turns, as relay.c pairs them */
        bool is_sub = O.raw ? i % 2 == 0 : i < n_sub;
        if (is_sub && s < n_sub) {
            c->role = ROLE_SUB;
            c->u.sub = &subs[s];
            subs[s++].c = c;
        } else if (p < n_pub) {
            c->role = ROLE_PUB;
            c->u.pub = &pubs[p];
            pubs[p].id = p;
            pubs[p].window = O.window;
            pubs[p++].c = c;
        }
    }
    if (O.raw)
        O.concurrency = 1;
}

static void open_all(void)
{
    run_until(done_open, O.timeout, false);
    if (S.failed || S.ready < nconns)
        die("%u of %u connections ready, %u failed, last reason %d", S.ready, nconns, S.failed,
            S.last_reason);
    S.timed_out = false;
}

static void make_tracks(uint32_t n)
{
    tracks = xcalloc(n, sizeof *tracks);
    for (uint32_t i = 0; i < n; i++)
        tracks[i].bits = xcalloc(O.count / 8 + 1, 1);
}

static void subscribe_all(char (*filters)[64])
{
    if (O.raw)
        return;
    S.sub_next = nsubs;
    for (uint32_t i = 0; i < nsubs; i++) {
        const char *f = filters[i];
        put_subscribe(subs[i].c, 1, &f, 1);
        flush(subs[i].c);
    }
    if (!run_until(done_suback, O.timeout, false) || S.sub_failed)
        die("subscribe: %" PRIu64 " of %u acknowledged, %" PRIu64 " refused", S.suback_filters,
            nsubs, S.sub_failed);
}

static void start_pubs(uint64_t limit)
{
    S.measuring = true;
    for (uint32_t i = 0; i < npubs; i++) {
        pubs[i].limit = limit;
        wake_later(&pubs[i]);
    }
}

static void close_all(void)
{
    for (uint32_t i = 0; i < nconns; i++) {
        if (conns[i].fd > 0 && conns[i].state == ST_READY && !O.raw) {
            memcpy(out_room(&conns[i], 2), (const uint8_t[]){ PKT_DISCONNECT << 4, 0 }, 2);
            flush(&conns[i]);
        }
        if (conns[i].fd > 0)
            close(conns[i].fd);
    }
}

/* ----------------------------------------------------------------- report */

static double secs(uint64_t a, uint64_t b) { return b > a ? (double)(b - a) / 1e9 : 0; }

static int report(const struct usage *u0, const struct usage *u1, const char *extra_json,
                  const char *extra_text)
{
    struct delta d = usage_delta(u0, u1);
    double el = secs(S.t_first, S.t_last), rx = (double)S.received;
    uint64_t lost = S.expected > S.received ? S.expected - S.received : 0;
    double rate = el > 0 ? rx / el : 0, per = rx > 0 ? 1e6 / rx : 0;
    bool ok = !lost && !S.dup && !S.proto_err && !S.nack && !S.disconnects && !S.failed &&
              !S.sub_failed && !S.timed_out && !S.inflight && !S.unreleased && (!S.track_order || !S.ooo);
    if (O.json) {
        printf("{\"scenario\":\"%s\",\"label\":\"%s\",\"proto\":%d,\"pub_qos\":%d,\"sub_qos\":%d,"
               "\"payload\":%u,\"publishers\":%u,\"subscribers\":%u,\"window\":%u,\"e2e_window\":%u,"
               "\"sent\":%" PRIu64 ",\"expected\":%" PRIu64 ",\"received\":%" PRIu64
               ",\"lost\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"out_of_order\":%" PRIu64
               ",\"elapsed_s\":%.6f,\"send_s\":%.6f,\"msgs_per_s\":%.1f,"
               "\"lat_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},"
               "\"broker_cpu_s\":%.6f,\"broker_user_s\":%.2f,\"broker_sys_s\":%.2f,"
               "\"broker_cpu_us_per_msg\":%.3f,\"rss_before_kb\":%" PRIu64 ",\"rss_after_kb\":%" PRIu64
               ",\"rss_peak_kb\":%" PRIu64 ",\"load_cpu_s\":%.6f,\"load_cpu_us_per_msg\":%.3f,"
               "\"disconnects\":%u,\"connect_failed\":%u,\"last_reason\":%d,\"nack\":%" PRIu64
               ",\"proto_err\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"sub_failed\":%" PRIu64
               ",\"sub_downgraded\":%" PRIu64 ",\"open_pub\":%" PRIu64 ",\"open_sub\":%" PRIu64
               ",\"timed_out\":%s%s,\"ok\":%s}\n",
               O.scenario, O.label, O.proto, O.pub_qos, O.sub_qos, O.payload, npubs, nsubs, O.window,
               O.e2e_window, S.sent, S.expected, S.received, lost, S.dup, S.ooo, el,
               secs(S.t_first, S.t_sent), rate, hist_us(&S.lat, .5), hist_us(&S.lat, .9),
               hist_us(&S.lat, .99), hist_us(&S.lat, .999), (double)S.lat.max / 1e3, d.cpu, d.user,
               d.sys, d.cpu * per, d.rss0_kb, d.rss1_kb, d.peak_kb, d.self, d.self * per,
               S.disconnects, S.failed, S.last_reason, S.nack, S.proto_err, S.foreign, S.sub_failed,
               S.sub_downgraded, S.inflight, S.unreleased, S.timed_out ? "true" : "false", extra_json, ok ? "true" : "false");
    } else {
        printf("%-10s %-8s v%d q%d/%d %uB %up/%us", O.label, O.scenario, O.proto == 4 ? 3 : 5,
               O.pub_qos, O.sub_qos, O.payload, npubs, nsubs);
        if (S.expected)
            printf("  %10.0f msg/s  %" PRIu64 "/%" PRIu64 " lost %" PRIu64 " dup %" PRIu64
                   " ooo %" PRIu64 "  p50 %.0f p99 %.0f p99.9 %.0f max %.0f us",
                   rate, S.received, S.expected, lost, S.dup, S.ooo, hist_us(&S.lat, .5),
                   hist_us(&S.lat, .99), hist_us(&S.lat, .999), (double)S.lat.max / 1e3);
        if (O.npids)
            printf("  broker %.3f s cpu (%.2f us/msg) rss %" PRIu64 "->%" PRIu64 " kB", d.cpu,
                   d.cpu * per, d.rss0_kb, d.rss1_kb);
        printf("  load %.3f s cpu (%.2f us/msg)%s%s\n", d.self, d.self * per, extra_text,
               ok ? "" : "  NOT OK");
        if (!ok)
            printf("    disconnects %u connect_failed %u reason %d nack %" PRIu64 " proto_err %" PRIu64
                   " foreign %" PRIu64 " sub_failed %" PRIu64 " open handshakes %" PRIu64 "+%" PRIu64
                   " timed_out %d\n", S.disconnects,
                   S.failed, S.last_reason, S.nack, S.proto_err, S.foreign, S.sub_failed,
                   S.inflight, S.unreleased, S.timed_out);
    }
    return ok ? 0 : 1;
}

/* -------------------------------------------------------------- scenarios */

/* pipe, fanout, fanin and rate differ only in who is connected to whom. */
static int run_traffic(void)
{
    bool fanout = !strcmp(O.scenario, "fanout"), fanin = !strcmp(O.scenario, "fanin");
    bool rate = !strcmp(O.scenario, "rate"), wild = fanin || (rate && !O.paired);
    if (rate)
        O.count = (uint64_t)(O.rate * (O.duration + O.warmup) + 0.5);
    if (!O.count)
        die("nothing to send");
    make_conns(fanout ? O.subs : wild ? 1 : O.pubs, fanout ? 1 : O.pubs, 0);
    make_tracks(fanout ? nsubs : npubs);
    char (*filters)[64] = xcalloc(nsubs, sizeof *filters), topic[64];
    for (uint32_t i = 0; i < npubs; i++) {
        snprintf(topic, sizeof topic, "bench/%u/p%u", run_id, i);
        build_template(&pubs[i], topic, false);
    }
    for (uint32_t i = 0; i < nsubs; i++) {
        struct sub *s = &subs[i];
        if (wild) {
            snprintf(filters[i], 64, "bench/%u/#", run_id);
            s->npubs = npubs;
        } else {
            snprintf(filters[i], 64, "bench/%u/p%u", run_id, fanout ? 0 : i);
            s->npubs = 1;
            s->track_base = i;
            s->first_pub = fanout ? 0 : i;
        }
    }
    S.fan = fanout ? nsubs : 1;
    S.expected = npubs * O.count * S.fan;
    S.track_order = true;
    open_all();
    subscribe_all(filters);
    free(filters);
    struct usage u0, u1;
    usage_take(&u0);
    S.t_last = 0;
    if (rate) {
        S.interval = 1e9 / (O.rate * npubs);
        S.rate_t0 = now_ns() + NSEC / 20;
        S.sched_total = npubs * O.count;
        S.rate_on = true;
        S.measuring = true;
    } else {
        start_pubs(O.count);
    }
    run_until(done_measured, rate ? O.duration + O.warmup + O.timeout : O.timeout, true);
    usage_take(&u1);
    uint32_t dis = S.disconnects;
    close_all();
    S.disconnects = dis;
    char js[128] = "", tx[64] = "";
    if (rate)
        snprintf(js, sizeof js, ",\"offered_per_s\":%.1f", O.rate * npubs);
    return report(&u0, &u1, js, tx);
}

static int run_idle(void)
{
    struct usage u0, u1, u2;
    make_conns(0, 0, O.conns);
    usage_take(&u0);
    S.t_first = now_ns();
    run_until(done_open, O.timeout, false);
    double el = secs(S.t_first, S.t_last);
    uint32_t ready = S.ready;
    run_until(done_never, 1, false);   /* let the broker settle */
    S.timed_out = ready + S.failed < nconns;
    usage_take(&u1);
    bool late = S.timed_out;
    if (O.hold)
        run_until(done_never, O.hold, false);
    S.timed_out = late;
    usage_take(&u2);
    struct delta d = usage_delta(&u0, &u1), h = usage_delta(&u1, &u2);
    double per = ready ? 1.0 / ready : 0;
    char js[512], tx[512];
    snprintf(js, sizeof js, ",\"connections\":%u,\"connects_per_s\":%.1f,\"connect_s\":%.3f,"
             "\"connect_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},\"rss_per_conn_b\":%.0f,"
             "\"cpu_us_per_connect\":%.2f,\"hold_s\":%u,\"hold_cpu_s\":%.4f,\"rss_hold_kb\":%" PRIu64,
             ready, el > 0 ? ready / el : 0, el, hist_us(&S.conn_lat, .5), hist_us(&S.conn_lat, .99),
             (double)S.conn_lat.max / 1e3,
             ((double)d.rss1_kb - (double)d.rss0_kb) * 1024 * per, d.cpu * 1e6 * per, O.hold,
             h.cpu, h.rss1_kb);
    snprintf(tx, sizeof tx, "  %u connected in %.3f s = %.0f/s (p99 %.0f us), %.0f B rss each, "
             "%.1f us cpu each, hold %u s: %.3f s cpu, %u closed", ready, el, el > 0 ? ready / el : 0,
             hist_us(&S.conn_lat, .99), ((double)d.rss1_kb - (double)d.rss0_kb) * 1024 * per,
             d.cpu * 1e6 * per, O.hold, h.cpu, S.disconnects);
    uint32_t dis = S.disconnects;
    close_all();
    S.disconnects = dis;
    S.t_last = 0;
    return report(&u0, &u1, js, tx);
}

static int run_subs(void)
{
    char topic[64];
    struct usage us, u0, u1;
    make_conns(1, 1, 0);
    make_tracks(1);
    snprintf(topic, sizeof topic, "subs%u/0000000/x/t", run_id);
    build_template(&pubs[0], topic, false);
    subs[0].npubs = 1;
    S.fan = 1;
    open_all();
    usage_take(&us);
    uint64_t t0 = now_ns();
    send_filters(subs[0].c);
    bool subscribed = run_until(done_suback, O.timeout, true) && S.suback_filters >= O.filters;
    double t_sub = secs(t0, S.t_progress);
    usage_take(&u0);
    S.timed_out = false;
    S.t_last = 0;
    S.expected = O.count;
    S.track_order = true;
    if (subscribed && subs[0].c->state == ST_READY) {
        start_pubs(O.count);
        run_until(done_measured, O.timeout, true);
    }
    usage_take(&u1);
    struct delta d = usage_delta(&us, &u0);
    double k = S.suback_filters ? (double)S.suback_filters : 1;
    char js[256], tx[256];
    snprintf(js, sizeof js, ",\"filters\":%" PRIu64 ",\"subscribe_s\":%.4f,\"subs_per_s\":%.0f,"
             "\"sub_cpu_us\":%.3f,\"rss_per_sub_b\":%.0f", S.suback_filters, t_sub,
             t_sub > 0 ? k / t_sub : 0, d.cpu * 1e6 / k,
             ((double)d.rss1_kb - (double)d.rss0_kb) * 1024 / k);
    snprintf(tx, sizeof tx, "  %" PRIu64 " filters in %.3f s = %.0f/s, %.2f us cpu, %.0f B each",
             S.suback_filters, t_sub, t_sub > 0 ? k / t_sub : 0, d.cpu * 1e6 / k,
             ((double)d.rss1_kb - (double)d.rss0_kb) * 1024 / k);
    uint32_t dis = S.disconnects;
    close_all();
    S.disconnects = dis;
    return report(&u0, &u1, js, tx);
}

static int run_retained(void)
{
    char topic[64], filter[1][64];
    struct usage us, u0, u1;
    /* The subscriber is connected beforehand but subscribes only afterwards. */
    make_conns(1, 1, 0);
    make_tracks(1);
    snprintf(topic, sizeof topic, "retained%u/0000000", run_id);
    build_template(&pubs[0], topic, true);
    subs[0].npubs = 1;
    S.fan = 1;
    open_all();
    usage_take(&us);
    start_pubs(O.count);
    uint64_t t0 = now_ns();
    bool stored = run_until(done_sent, O.timeout, true);
    if (stored) {                      /* a PINGRESP: the broker has read them all */
        memcpy(out_room(pubs[0].c, 2), (const uint8_t[]){ PKT_PINGREQ << 4, 0 }, 2);
        flush(pubs[0].c);
        run_until(done_ping, O.timeout, true);
    }
    double t_store = secs(t0, S.t_progress);
    usage_take(&u0);
    S.expected = O.count;
    S.t_first = now_ns();
    S.t_last = 0;
    S.sub_next = 1;
    strcpy(filter[0], "#");
    const char *f = filter[0];
    put_subscribe(subs[0].c, 1, &f, 1);
    flush(subs[0].c);
    run_until(done_received, O.timeout, true);
    usage_take(&u1);
    struct delta d = usage_delta(&us, &u0);
    double t_get = secs(S.t_first, S.t_last);
    if (O.cleanup && pubs[0].c->state == ST_READY) { /* empty payload: remove them again */
        for (uint64_t i = 0; i < O.count; i++) {
            uint32_t tl = (uint32_t)strlen(topic), v5 = O.proto == 5;
            uint8_t *b = out_room(pubs[0].c, 2 + 2 + tl + v5);
            snprintf(topic, sizeof topic, "retained%u/%07u", run_id, (uint32_t)i);
            b[0] = PKT_PUBLISH << 4 | 1;
            b[1] = (uint8_t)(2 + tl + v5);
            memcpy(put_u16(b + 2, tl), topic, tl);
            if (v5)
                b[4 + tl] = 0;
        }
        S.pingresp = 0;
        memcpy(out_room(pubs[0].c, 2), (const uint8_t[]){ PKT_PINGREQ << 4, 0 }, 2);
        S.measuring = false;
        flush(pubs[0].c);
        uint64_t got = S.received, foreign = S.foreign;
        run_until(done_ping, O.timeout, true);
        S.received = got;
        S.foreign = foreign;
        S.timed_out = false;
    }
    char js[256], tx[256];
    snprintf(js, sizeof js, ",\"store_s\":%.4f,\"store_per_s\":%.0f,\"store_cpu_us\":%.3f,"
             "\"deliver_s\":%.4f,\"retain_flags\":%" PRIu64 ",\"rss_per_retained_b\":%.0f", t_store,
             t_store > 0 ? (double)O.count / t_store : 0, d.cpu * 1e6 / (double)O.count, t_get,
             S.retained_seen, ((double)d.rss1_kb - (double)d.rss0_kb) * 1024 / (double)O.count);
    snprintf(tx, sizeof tx, "  stored in %.3f s (%.2f us cpu each), delivered in %.3f s, retain flag "
             "on %" PRIu64, t_store, d.cpu * 1e6 / (double)O.count, t_get, S.retained_seen);
    uint32_t dis = S.disconnects;
    close_all();
    S.disconnects = dis;
    return report(&u0, &u1, js, tx);
}

/* ------------------------------------------------------------------- main */

static const char usage_text[] =
    "mqload --scenario pipe|fanout|fanin|rate|idle|subs|retained [options]\n"
    "  --host A --port N        broker (numeric IPv4; 127.0.0.1 1883)\n"
    "  --persistent             subscribers have sessions that stay (version 4)\n"
    "  --proto 4|5              MQTT 3.1.1 or 5.0 (4)\n"
    "  --qos Q | --pub-qos Q --sub-qos Q   (0)\n"
    "  --payload BYTES          at least 16 (64)\n"
    "  --count N                messages per publisher (pipe, fanout, fanin, subs, retained)\n"
    "  --pubs P --subs S        publishers (pipe 1, fanin/rate 100), fanout subscribers (100)\n"
    "  --window W               QoS 1/2: unacknowledged messages per publisher (1000)\n"
    "  --e2e-window W           at most W undelivered messages per publisher (0: no limit)\n"
    "  --lazy US                sleep this long before each poll (not in rate): less load CPU,\n"
    "                           larger reads, but no wake-up at each of the broker's writes (0)\n"
    "  --batch BYTES            bytes encoded before a write (65536)\n"
    "  --rate R --duration S --warmup S --paired --spin    (rate: 1/s per publisher, 10 s, 1 s)\n"
    "  --conns K --hold S --concurrency C                  (idle: 1000, 0, 64)\n"
    "  --filters K --sub-batch B                           (subs: 100000, 100 per SUBSCRIBE)\n"
    "  --wild N --topics T      subs: one filter in N has a wildcard (5); publish to the topics\n"
    "                           of the first T filters only (all)\n"
    "  --cleanup                retained: remove the messages afterwards\n"
    "  --keepalive S            in CONNECT (0)\n"
    "  --ws [--ws-merge]        over WebSocket, each packet in a frame of its own; or all packets\n"
    "                           of a write in one\n"
    "  --tls                    TLS, without a look at the certificate (compiled WITH_TLS)\n"
    "  --raw                    pipe without MQTT handshakes, for relay.c\n"
    "  --timeout S --quiet S    give up after (60); end this long after the last progress (3)\n"
    "  --broker-pid PID         report its CPU and memory (repeatable, children included)\n"
    "  --label TEXT --json\n";

int main(int argc, char **argv)
{
    enum { o_host = 256, o_port, o_proto, o_qos, o_pqos, o_sqos, o_payload, o_count, o_pubs, o_subs,
           o_window, o_e2e, o_batch, o_rate, o_dur, o_warm, o_paired, o_conns, o_hold, o_conc,
           o_filters, o_sbatch, o_keep, o_raw, o_timeout, o_quiet, o_pid, o_label, o_json, o_scen,
           o_clean, o_spin, o_lazy, o_wild, o_topics, o_persistent, o_ws, o_ws_merge, o_tls,
           o_help };
    static const struct option opts[] = {
        { "scenario", 1, 0, o_scen }, { "host", 1, 0, o_host }, { "port", 1, 0, o_port },
        { "proto", 1, 0, o_proto }, { "qos", 1, 0, o_qos }, { "pub-qos", 1, 0, o_pqos },
        { "sub-qos", 1, 0, o_sqos }, { "payload", 1, 0, o_payload }, { "count", 1, 0, o_count },
        { "pubs", 1, 0, o_pubs }, { "subs", 1, 0, o_subs }, { "window", 1, 0, o_window },
        { "e2e-window", 1, 0, o_e2e }, { "batch", 1, 0, o_batch }, { "rate", 1, 0, o_rate },
        { "duration", 1, 0, o_dur }, { "warmup", 1, 0, o_warm }, { "paired", 0, 0, o_paired },
        { "conns", 1, 0, o_conns }, { "hold", 1, 0, o_hold }, { "concurrency", 1, 0, o_conc },
        { "filters", 1, 0, o_filters }, { "sub-batch", 1, 0, o_sbatch },
        { "keepalive", 1, 0, o_keep }, { "raw", 0, 0, o_raw }, { "timeout", 1, 0, o_timeout },
        { "quiet", 1, 0, o_quiet }, { "broker-pid", 1, 0, o_pid }, { "label", 1, 0, o_label },
        { "json", 0, 0, o_json }, { "cleanup", 0, 0, o_clean }, { "spin", 0, 0, o_spin }, { "lazy", 1, 0, o_lazy },
        { "wild", 1, 0, o_wild }, { "topics", 1, 0, o_topics },
        { "persistent", 0, 0, o_persistent }, { "ws", 0, 0, o_ws },
        { "ws-merge", 0, 0, o_ws_merge }, { "tls", 0, 0, o_tls }, { "help", 0, 0, o_help }, { 0, 0, 0, 0 } };
    int o;
    while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        switch (o) {
        case o_scen: O.scenario = optarg; break;
        case o_host: O.host = optarg; break;
        case o_port: O.port = atoi(optarg); break;
        case o_proto: O.proto = atoi(optarg); break;
        case o_qos: O.pub_qos = O.sub_qos = atoi(optarg); break;
        case o_pqos: O.pub_qos = atoi(optarg); break;
        case o_sqos: O.sub_qos = atoi(optarg); break;
        case o_payload: O.payload = (uint32_t)atoi(optarg); break;
        case o_count: O.count = strtoull(optarg, NULL, 10); break;
        case o_pubs: O.pubs = (uint32_t)atoi(optarg); break;
        case o_subs: O.subs = (uint32_t)atoi(optarg); break;
        case o_window: O.window = (uint32_t)atoi(optarg); break;
        case o_e2e: O.e2e_window = (uint32_t)atoi(optarg); break;
        case o_batch: O.batch = (uint32_t)atoi(optarg); break;
        case o_rate: O.rate = atof(optarg); break;
        case o_dur: O.duration = atof(optarg); break;
        case o_warm: O.warmup = atof(optarg); break;
        case o_paired: O.paired = true; break;
        case o_conns: O.conns = (uint32_t)atoi(optarg); break;
        case o_hold: O.hold = (uint32_t)atoi(optarg); break;
        case o_conc: O.concurrency = atoi(optarg); break;
        case o_filters: O.filters = (uint32_t)atoi(optarg); break;
        case o_sbatch: O.sub_batch = atoi(optarg); break;
        case o_keep: O.keepalive = atoi(optarg); break;
        case o_raw: O.raw = true; break;
        case o_timeout: O.timeout = atof(optarg); break;
        case o_quiet: O.quiet = atof(optarg); break;
        case o_pid:
            if (O.npids < MAX_PIDS)
                O.pids[O.npids++] = atoi(optarg);
            break;
        case o_label: O.label = optarg; break;
        case o_json: O.json = true; break;
        case o_clean: O.cleanup = true; break;
        case o_spin: O.spin = true; break;
        case o_lazy: O.lazy = (uint32_t)atoi(optarg); break;
        case o_wild: O.wild = (uint32_t)atoi(optarg); break;
        case o_persistent: O.persistent = true; break;
#ifdef WITH_TLS
        case o_tls: O.tls = true; break;
#else
        case o_tls: die("this mqload is compiled without TLS"); break;
#endif
        case o_ws: O.ws = true; break;
        case o_ws_merge: O.ws = O.ws_merge = true; break;
        case o_topics: O.topics = (uint32_t)atoi(optarg); break;
        case o_help: fputs(usage_text, stdout); return 0;
        default: fputs(usage_text, stderr); return 2;
        }
    }
    bool idle = !strcmp(O.scenario, "idle"), sub = !strcmp(O.scenario, "subs");
    bool ret = !strcmp(O.scenario, "retained"), pipe = !strcmp(O.scenario, "pipe");
    bool fanout = !strcmp(O.scenario, "fanout"), fanin = !strcmp(O.scenario, "fanin");
    bool rate = !strcmp(O.scenario, "rate");
    if (!(idle || sub || ret || pipe || fanout || fanin || rate))
        die("unknown scenario %s", O.scenario);
    if ((O.proto != 4 && O.proto != 5) || O.pub_qos < 0 || O.pub_qos > 2 || O.sub_qos < 0 ||
        O.sub_qos > 2 || O.payload < 16 || O.payload > 200000000 || !O.window || O.window > 65535 ||
        O.lazy > 100000 || O.sub_batch < 1 || O.sub_batch > 1000 || O.concurrency < 1 || O.rate <= 0)
        die("an option is out of its range");
    if (!O.pubs)
        O.pubs = fanin || rate ? 100 : 1;
    if (!O.subs)
        O.subs = 100;
    if (!O.conns)
        O.conns = 1000;
    if (!O.filters)
        O.filters = 100000;
    if (!O.count)
        O.count = fanout ? 2000 : fanin ? 1000 : ret ? 10000 : 100000;
    if (!O.topics || O.topics > O.filters)
        O.topics = O.filters;
    if (sub && (O.topics % 7919 == 0 || O.wild < 4))
        die("--filters and --topics must not be multiples of 7919, --wild not less than 4");
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    run_id = (uint32_t)getpid();
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t)O.port);
    if (inet_pton(AF_INET, O.host, &addr.sin_addr) != 1)
        die("--host must be a numeric IPv4 address");
    struct rlimit rl;
    if (!getrlimit(RLIMIT_NOFILE, &rl)) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
    rbuf_size = 512 * 1024 + 2 * (size_t)O.payload;
    rbuf = xcalloc(rbuf_size + 1, 1);
    return idle ? run_idle() : sub ? run_subs() : ret ? run_retained() : run_traffic();
}
