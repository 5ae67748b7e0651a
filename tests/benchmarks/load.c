/* A load client for small HTTP/1.1 requests: C connections, keep-alive, one request in flight on
 * each, one thread.  wrk waits for a body after HEAD, and a client in Python would be the slower
 * side; this one costs a few microseconds a request.
 *
 *   load PORT CONNECTIONS SECONDS HEAD|GET < request-head
 *
 * Prints one line of JSON: requests, seconds, p50 and p99 in microseconds, and how many answers
 * were not 200.  Loopback only. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HEAD = 16384, MAX_CONNECTIONS = 1024, BUFFER = 65536, MAX_SAMPLES = 4000000 };

struct connection {
    int fd;
    double started;
    size_t filled;   /* bytes of the answer's head collected so far */
    long body_left;  /* -1 while the head is not complete */
    char head[BUFFER];
};

static char request[MAX_HEAD];
static size_t request_size;
static int is_head;
static float *samples;
static size_t sample_count;
static long not_ok;
static struct connection connections[MAX_CONNECTIONS];

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_request(struct connection *c) {
    c->started = now();
    c->filled = 0;
    c->body_left = -1;
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) die("send");
}

static void open_connection(struct connection *c, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* The length of the body that follows a complete head. */
static long body_length(const char *head) {
    if (is_head) return 0;
    const char *found = strcasestr(head, "\r\ncontent-length:");
    if (!found) { fprintf(stderr, "answer without Content-Length:\n%.300s\n", head); exit(1); }
    return atol(found + 17);
}

static void finish(struct connection *c, double end) {
    if (strncmp(c->head, "HTTP/1.1 200", 12)) not_ok++;
    if (sample_count < MAX_SAMPLES) samples[sample_count++] = (float)((end - c->started) * 1e6);
    send_request(c);
}

static void receive(struct connection *c) {
    static char sink[1 << 18];
    ssize_t got;
    if (c->body_left > 0) {
        got = recv(c->fd, sink, sizeof sink, 0);
        if (got <= 0) die("recv");
        c->body_left -= got;
    } else {
        got = recv(c->fd, c->head + c->filled, BUFFER - 1 - c->filled, 0);
        if (got <= 0) { errno = got ? errno : ECONNRESET; die("recv"); }
        c->filled += got;
        c->head[c->filled] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return;
        c->body_left = body_length(c->head) - (long)(c->filled - (end + 4 - c->head));
    }
    if (c->body_left <= 0) finish(c, now());
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "load PORT CONNECTIONS SECONDS HEAD|GET < head\n"); return 2; }
    int port = atoi(argv[1]), count = atoi(argv[2]);
    double seconds = atof(argv[3]);
    is_head = !strcmp(argv[4], "HEAD");
    request_size = fread(request, 1, sizeof request, stdin);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    if (count < 1 || count > MAX_CONNECTIONS || !request_size || !samples) return 2;

    int poll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        open_connection(&connections[i], port);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, connections[i].fd, &event)) die("epoll_ctl");
    }
    double start = now(), end = start + seconds;
    for (int i = 0; i < count; i++) send_request(&connections[i]);
    while (now() < end) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, 1000);
        for (int i = 0; i < ready; i++) receive(events[i].data.ptr);
    }
    double took = now() - start;
    if (!sample_count) { fprintf(stderr, "no answer in %.1f s\n", took); return 1; }
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"not_ok\": %ld}\n",
           sample_count, took, samples[sample_count / 2],
           samples[(size_t)(sample_count * 0.99)], not_ok);
    return 0;
}
