/*
 * pingpong - clients that each wait for their own message before they send the next.
 *
 *   cc -O2 -std=c11 -Wall -Wextra -o pingpong pingpong.c
 *   pingpong PORT CLIENTS SECONDS
 *
 * Every client subscribes to a topic of its own and publishes 64 bytes to it, QoS 0. What is measured
 * is one wake-up of the broker for each message: the opposite of a pipeline. Prints one JSON object;
 * exit status 0 complete, 1 a client got nothing back or was closed, 2 could not be run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 64
#define ROUNDS_MAX 4000000 /* round-trip times kept for the percentiles */

struct client {
    int fd, length, got;          /* length of the PUBLISH; bytes of it that came back */
    long rounds;
    double sent_at;
    uint8_t packet[128];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void put(int fd, const uint8_t *bytes, int n)
{
    if (write(fd, bytes, (size_t)n) != n)
        die("write");
}

static void expect(int fd, uint8_t first, int n)
{
    uint8_t answer[16];
    int have = 0;
    while (have < n) {
        ssize_t r = read(fd, answer + have, (size_t)(n - have));
        if (r <= 0)
            die("read");
        have += (int)r;
    }
    if (answer[0] != first || answer[n - 1] >= 0x80)
        die("the broker refused");
}

static void open_client(struct client *c, int index, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    uint8_t b[128];
    char name[32];
    int one = 1, n;
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);

    n = snprintf(name, sizeof name, "c%d", index);           /* CONNECT, 3.1.1, keep alive 600 s */
    b[0] = 0x10, b[1] = (uint8_t)(12 + n);
    memcpy(b + 2, "\0\4MQTT\4\2\2\x58", 10);
    b[12] = 0, b[13] = (uint8_t)n;
    memcpy(b + 14, name, (size_t)n);
    put(c->fd, b, 14 + n);
    expect(c->fd, 0x20, 4);

    n = snprintf(name, sizeof name, "pp/%d", index);         /* SUBSCRIBE, QoS 0 */
    b[0] = 0x82, b[1] = (uint8_t)(5 + n), b[2] = 0, b[3] = 1, b[4] = 0, b[5] = (uint8_t)n;
    memcpy(b + 6, name, (size_t)n);
    b[6 + n] = 0;
    put(c->fd, b, 7 + n);
    expect(c->fd, 0x90, 5);

    uint8_t *p = c->packet;                                  /* PUBLISH, QoS 0 */
    p[0] = 0x30, p[1] = (uint8_t)(2 + n + PAYLOAD), p[2] = 0, p[3] = (uint8_t)n;
    memcpy(p + 4, name, (size_t)n);
    memset(p + 4 + n, 'x', PAYLOAD);
    c->length = 4 + n + PAYLOAD;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "pingpong PORT CLIENTS SECONDS\n");
        return 2;
    }
    int port = atoi(argv[1]), n = atoi(argv[2]), ep = epoll_create1(0), broken = 0;
    double duration = atof(argv[3]), last = 0;
    struct client *clients = calloc((size_t)n, sizeof *clients);
    float *times = malloc(ROUNDS_MAX * sizeof *times);
    long rounds = 0;
    if (n < 1 || !clients || !times)
        die("clients");
    for (int i = 0; i < n; i++) {
        open_client(&clients[i], i, port);
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = &clients[i] };
        epoll_ctl(ep, EPOLL_CTL_ADD, clients[i].fd, &e);
    }
    double start = last = now();
    for (int i = 0; i < n; i++) {
        clients[i].sent_at = now();
        put(clients[i].fd, clients[i].packet, clients[i].length);
    }
    struct epoll_event events[256];
    uint8_t buffer[4096];
    while (!broken && now() - start < duration) {
        int ready = epoll_wait(ep, events, 256, 1000);
        for (int j = 0; j < ready; j++) {
            struct client *c = events[j].data.ptr;
            ssize_t r = read(c->fd, buffer, sizeof buffer);
            if (r <= 0) {
                broken = 1;
                break;
            }
            c->got += (int)r;
            if (c->got < c->length)
                continue;
            c->got = 0;
            c->rounds++;
            last = now();
            if (rounds < ROUNDS_MAX)
                times[rounds] = (float)(last - c->sent_at);
            rounds++;
            c->sent_at = last;
            put(c->fd, c->packet, c->length);
        }
    }
    int silent = 0;
    for (int i = 0; i < n; i++)
        silent += !clients[i].rounds;
    long kept = rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
    qsort(times, (size_t)kept, sizeof *times, by_size);
    printf("{\"received\":%ld,\"msgs_per_s\":%.1f,\"lat_us\":{\"p50\":%.1f,\"p99\":%.1f},\"lost\":%d,"
           "\"ok\":%s}\n", rounds, rounds ? (double)rounds / (last - start) : 0.0,
           kept ? (double)times[kept / 2] * 1e6 : 0.0, kept ? (double)times[kept * 99 / 100] * 1e6 : 0.0,
           silent, silent || broken ? "false" : "true");
    return silent || broken;
}
