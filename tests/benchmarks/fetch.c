/* A load client for big downloads: C connections, a thread each, that read one answer's body and
 * keep nothing.  A client in Python would be the slower side.
 *
 *   fetch PORT CONNECTIONS SECONDS < request-head
 *
 * Each connection makes one request, and more as long as SECONDS are not over.  Prints one line of
 * JSON: bytes of the bodies, seconds.  Loopback only. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HEAD = 16384, MAX_CONNECTIONS = 1024, BUFFER = 1 << 18 };

static char request[MAX_HEAD];
static size_t request_size;
static int port;
static double end;

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* One request on a connection of its own; the size of the body. */
static long fetch(char *buffer) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    if (send(fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) die("send");
    size_t filled = 0;
    char *body;
    do {
        ssize_t got = recv(fd, buffer + filled, BUFFER - 1 - filled, 0);
        if (got <= 0) die("recv");
        filled += got;
        buffer[filled] = 0;
    } while (!(body = strstr(buffer, "\r\n\r\n")));
    char *length = strcasestr(buffer, "\r\ncontent-length:");
    if (strncmp(buffer, "HTTP/1.1 200", 12) || !length) {
        fprintf(stderr, "unexpected answer:\n%.300s\n", buffer);
        exit(1);
    }
    long size = atol(length + 17), left = size - (long)(filled - (body + 4 - buffer));
    while (left > 0) {
        ssize_t got = recv(fd, buffer, BUFFER, 0);
        if (got <= 0) die("recv");
        left -= got;
    }
    close(fd);
    return size;
}

static void *connection(void *total) {
    char *buffer = malloc(BUFFER);
    if (!buffer) die("malloc");
    do *(long *)total += fetch(buffer);
    while (now() < end);
    free(buffer);
    return NULL;
}

int main(int argc, char **argv) {
    static pthread_t threads[MAX_CONNECTIONS];
    static long totals[MAX_CONNECTIONS];
    if (argc != 4) { fprintf(stderr, "fetch PORT CONNECTIONS SECONDS < head\n"); return 2; }
    port = atoi(argv[1]);
    int count = atoi(argv[2]);
    request_size = fread(request, 1, sizeof request, stdin);
    if (count < 1 || count > MAX_CONNECTIONS || !request_size) return 2;
    double start = now();
    end = start + atof(argv[3]);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, connection, &totals[i])) die("pthread_create");
    long total = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        total += totals[i];
    }
    printf("{\"bytes\": %ld, \"seconds\": %.6f}\n", total, now() - start);
    return 0;
}
