/* Pushes prepared images as clients do, so many at once, and tells how long it took.  A client in
 * Python would be the slower side: this one costs a few microseconds a request and hashes nothing.
 *
 *   push PORT AT_ONCE docker|containerd < plan
 *
 * docker: HEAD, POST, PATCH (chunked), PUT for each blob; containerd: HEAD, POST, PUT with the
 * bytes; then PUT of the manifest.  Each worker has one kept-alive connection.  The plan is a row
 * of strings and numbers, each string as 4 bytes of length (host order) and its bytes:
 *
 *   header lines for every request; the bytes that all layers end with; number of images;
 *   for each image: repository, tag, manifest, number of blobs;
 *   for each blob: digest, its first bytes, number 1 if the common bytes follow
 *
 * Prints one line of JSON: images, requests, seconds, and the CPU seconds of this client. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 32 << 10, MAX_PARTS = 1024, HEAD = 32768, MAX_WORKERS = 64 };

struct text { uint32_t size; char *bytes; };
struct blob { struct text digest, first; uint32_t has_tail; };
struct image { struct text repository, tag, manifest; uint32_t count; struct blob *blobs; };

static struct text headers, tail;
static struct image *images;
static uint32_t image_count;
static int port, is_docker;
static int next_image;
static long requests;

static void die(const char *what) { perror(what); exit(1); }

static void take(void *to, size_t size) { if (size && fread(to, size, 1, stdin) != 1) die("plan"); }

static uint32_t take_number(void) { uint32_t n; take(&n, sizeof n); return n; }

static struct text take_text(void) {
    struct text t = {.size = take_number()};
    t.bytes = calloc(1, t.size + 1);
    if (!t.bytes) die("calloc");
    take(t.bytes, t.size);
    return t;
}

static void take_plan(void) {
    headers = take_text();
    tail = take_text();
    image_count = take_number();
    images = calloc(image_count, sizeof *images);
    if (!images) die("calloc");
    for (uint32_t i = 0; i < image_count; i++) {
        struct image *m = &images[i];
        m->repository = take_text();
        m->tag = take_text();
        m->manifest = take_text();
        m->count = take_number();
        m->blobs = calloc(m->count, sizeof *m->blobs);
        for (uint32_t b = 0; b < m->count; b++) {
            m->blobs[b].digest = take_text();
            m->blobs[b].first = take_text();
            m->blobs[b].has_tail = take_number();
        }
    }
}

static int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void send_parts(int fd, struct iovec *parts, int count) {
    while (count) {
        ssize_t sent = writev(fd, parts, count);
        if (sent < 0) die("writev");
        while (count && (size_t)sent >= parts->iov_len) { sent -= parts->iov_len; parts++; count--; }
        if (count) { parts->iov_base = (char *)parts->iov_base + sent; parts->iov_len -= sent; }
    }
}

/* Read one answer; keep the path of its Location if it has one. */
static void expect(int fd, int status, int is_head, char *location) {
    static __thread char head[HEAD];
    size_t filled = 0;
    char *end = NULL;
    while (!end) {
        ssize_t got = recv(fd, head + filled, sizeof head - 1 - filled, 0);
        if (got <= 0) die("the server closed the connection");
        filled += got;
        head[filled] = 0;
        end = strstr(head, "\r\n\r\n");
    }
    if (atoi(head + 9) != status) {
        fprintf(stderr, "expected %d, got:\n%.600s\n", status, head);
        exit(1);
    }
    char *length = strcasestr(head, "\r\ncontent-length:");
    long left = is_head || !length || length > end ? 0 : atol(length + 17);
    left -= filled - (end + 4 - head);
    while (left > 0) {
        static __thread char sink[65536];
        ssize_t got = recv(fd, sink, (size_t)left < sizeof sink ? (size_t)left : sizeof sink, 0);
        if (got <= 0) die("the server closed the connection");
        left -= got;
    }
    char *found = strcasestr(head, "\r\nlocation:");
    if (location && found && found < end) {
        found += 11 + strspn(found + 11, " ");
        char *host = strstr(found, "://");
        char *line = strstr(found, "\r\n");
        if (host && host < line) found = strchr(host + 3, '/');
        snprintf(location, HEAD, "%.*s", (int)(line - found), found);
    }
    __atomic_fetch_add(&requests, 1, __ATOMIC_RELAXED);
}

/* One request: a body of up to two pieces, with a length or in chunks. */
static void request(int fd, const char *method, const char *path, struct text first,
                    struct text rest, int chunked, const char *more) {
    static __thread char head[2 * HEAD];
    static __thread char sizes[MAX_PARTS][16];
    static __thread struct iovec parts[MAX_PARTS];
    int count = 0;
    int size = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\n%s%s", method, path, headers.bytes, more);
    if (chunked)
        size += snprintf(head + size, sizeof head - size, "Transfer-Encoding: chunked\r\n\r\n");
    else
        size += snprintf(head + size, sizeof head - size, "Content-Length: %u\r\n\r\n",
                         first.size + rest.size);
    parts[count++] = (struct iovec){head, size};
    struct text pieces[] = {first, rest};
    for (int i = 0; i < 2; i++)
        for (uint32_t at = 0; at < pieces[i].size;) {
            uint32_t n = pieces[i].size - at;
            if (chunked && n > CHUNK) n = CHUNK;
            if (chunked)
                parts[count] = (struct iovec){sizes[count], snprintf(sizes[count], 16, "%x\r\n", n)}, count++;
            parts[count++] = (struct iovec){pieces[i].bytes + at, n};
            if (chunked) parts[count++] = (struct iovec){"\r\n", 2};
            at += n;
        }
    if (chunked) parts[count++] = (struct iovec){"0\r\n\r\n", 5};
    send_parts(fd, parts, count);
}

static void push(int fd, struct image *m) {
    static __thread char path[2 * HEAD], location[HEAD];
    const struct text none = {0};
    for (uint32_t b = 0; b < m->count; b++) {
        struct blob *blob = &m->blobs[b];
        struct text rest = blob->has_tail ? tail : none;
        snprintf(path, sizeof path, "/v2/%s/blobs/%s", m->repository.bytes, blob->digest.bytes);
        request(fd, "HEAD", path, none, none, 0, "");
        expect(fd, 404, 1, NULL);
        snprintf(path, sizeof path, "/v2/%s/blobs/uploads/", m->repository.bytes);
        request(fd, "POST", path, none, none, 0, "");
        expect(fd, 202, 0, location);
        if (is_docker) {
            request(fd, "PATCH", location, blob->first, rest, 1, "");
            expect(fd, 202, 0, location);
        }
        snprintf(path, sizeof path, "%s%cdigest=%s", location, strchr(location, '?') ? '&' : '?',
                 blob->digest.bytes);
        if (is_docker)
            request(fd, "PUT", path, none, none, 0, "");
        else
            request(fd, "PUT", path, blob->first, rest, 0, "Content-Type: application/octet-stream\r\n");
        expect(fd, 201, 0, NULL);
    }
    snprintf(path, sizeof path, "/v2/%s/manifests/%s", m->repository.bytes, m->tag.bytes);
    request(fd, "PUT", path, m->manifest, none, 0,
            "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n");
    expect(fd, 201, 0, NULL);
}

static void *work(void *unused) {
    int fd = dial();
    for (;;) {
        uint32_t i = __atomic_fetch_add(&next_image, 1, __ATOMIC_RELAXED);
        if (i >= image_count) break;
        push(fd, &images[i]);
    }
    close(fd);
    return unused;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "push PORT AT_ONCE docker|containerd < plan\n"); return 2; }
    int workers = atoi(argv[2]);
    if (workers < 1 || workers > MAX_WORKERS) { fprintf(stderr, "1 to %d at once\n", MAX_WORKERS); return 2; }
    port = atoi(argv[1]);
    is_docker = !strcmp(argv[3], "docker");
    take_plan();
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    double started = now();
    pthread_t threads[MAX_WORKERS];
    for (int i = 0; i < workers; i++) if (pthread_create(&threads[i], NULL, work, NULL)) die("thread");
    for (int i = 0; i < workers; i++) pthread_join(threads[i], NULL);
    double seconds = now() - started;
    getrusage(RUSAGE_SELF, &after);
#define SECONDS(t) ((t).tv_sec + (t).tv_usec / 1e6)
    double cpu = SECONDS(after.ru_utime) + SECONDS(after.ru_stime) - SECONDS(before.ru_utime) - SECONDS(before.ru_stime);
    printf("{\"images\": %u, \"requests\": %ld, \"seconds\": %.6f, \"cpu\": %.6f}\n",
           image_count, requests, seconds, cpu);
    return 0;
}
