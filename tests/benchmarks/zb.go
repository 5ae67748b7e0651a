// The workload of zot's benchmark tool (zb), from its published description: registries are pushed
// to and pulled from by C clients, each with one kept-alive connection, N images in all.
//
//	zb -port PORT -c 10 -n 100 -test push-monolith|push-chunk|pull|mixed|catalog \
//	   -sizes 1:70,10:20,100:10 -authorization "Bearer ..."
//
// An image is a config and one layer: a file of zeros behind a random first page, so that every
// digest is new. A push is POST, PUT (or PATCH chunked, PUT) for layer and config, and PUT of the
// manifest; repositories take turns. A pull is HEAD and GET of manifest, config and layer.
// Prints one line of JSON: images a second, latencies of an image in milliseconds, statuses.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	page      = 4096
	mediaType = "application/vnd.oci.image.manifest.v1+json"
)

var (
	port          = flag.Int("port", 0, "")
	clients       = flag.Int("c", 10, "")
	images        = flag.Int("n", 100, "")
	test          = flag.String("test", "pull", "")
	sizes         = flag.String("sizes", "1:100", "MB:percent,...")
	repositories  = flag.Int("repositories", 10, "")
	authorization = flag.String("authorization", "", "")
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// blob is a random first page and zeros up to its size.
type blob struct {
	head   []byte
	size   int64
	digest string
}

func newBlob(size int64) blob {
	head := make([]byte, min(size, page))
	must(rand.Read(head))
	b := blob{head: head, size: size}
	hash := sha256.New()
	must(io.Copy(hash, b.reader()))
	b.digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return b
}

func literal(content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{content, int64(len(content)), "sha256:" + hex.EncodeToString(sum[:])}
}

func (b blob) reader() io.Reader {
	return io.MultiReader(bytes.NewReader(b.head), io.LimitReader(zeros{}, b.size-int64(len(b.head))))
}

type image struct {
	repository    string
	layer, config blob
	tag           string
	manifest      []byte
}

func newImage(number int, megabytes int64) image {
	layer := newBlob(megabytes << 20)
	config := literal([]byte(fmt.Sprintf(
		`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer.digest)))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		mediaType, config.digest, config.size, layer.digest, layer.size)
	repository := fmt.Sprintf("zb/r%d", number%*repositories)
	return image{repository, layer, config, layer.digest[7:19], []byte(manifest)}
}

// client is one kept-alive connection.
type client struct {
	http     http.Client
	statuses map[int]int
}

func newClient() *client {
	transport := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true, WriteBufferSize: 1 << 18, ReadBufferSize: 1 << 18}
	return &client{http.Client{Transport: transport}, map[int]int{}}
}

func (c *client) do(method, path, kind string, body io.Reader, size int64, want int) *http.Response {
	if strings.HasPrefix(path, "/") {
		path = fmt.Sprintf("http://127.0.0.1:%d%s", *port, path)
	}
	request := must(http.NewRequest(method, path, body))
	request.ContentLength = size
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	request.Header.Set("Accept", mediaType)
	if *authorization != "" {
		request.Header.Set("Authorization", *authorization)
	}
	answer := must(c.http.Do(request))
	c.statuses[answer.StatusCode]++
	if answer.StatusCode != want {
		text := must(io.ReadAll(answer.Body))
		fmt.Fprintf(os.Stderr, "%s %s: %d, not %d: %s\n", method, path, answer.StatusCode, want, text)
		os.Exit(1)
	}
	must(io.Copy(io.Discard, answer.Body))
	answer.Body.Close()
	return answer
}

func withDigest(location, digest string) string {
	joint := "?"
	if strings.Contains(location, "?") {
		joint = "&"
	}
	return location + joint + "digest=" + digest
}

func (c *client) put(repository string, b blob, chunked bool) {
	where := c.do("POST", "/v2/"+repository+"/blobs/uploads/", "", nil, 0, 202).Header.Get("Location")
	const octets = "application/octet-stream"
	if chunked {
		where = c.do("PATCH", where, octets, b.reader(), -1, 202).Header.Get("Location")
		c.do("PUT", withDigest(where, b.digest), octets, http.NoBody, 0, 201)
		return
	}
	c.do("PUT", withDigest(where, b.digest), octets, b.reader(), b.size, 201)
}

func (c *client) push(i image, chunked bool) {
	c.put(i.repository, i.layer, chunked)
	c.put(i.repository, i.config, false)
	c.do("PUT", "/v2/"+i.repository+"/manifests/"+i.tag, mediaType, bytes.NewReader(i.manifest), int64(len(i.manifest)), 201)
}

func (c *client) pull(i image) {
	for _, path := range []string{"manifests/" + i.tag, "blobs/" + i.config.digest, "blobs/" + i.layer.digest} {
		c.do("HEAD", "/v2/"+i.repository+"/"+path, "", nil, 0, 200)
		c.do("GET", "/v2/"+i.repository+"/"+path, "", nil, 0, 200)
	}
}

// megabytes of image number n, so that every hundred images have the wanted shares.
func megabytes(number int) int64 {
	place := number * 37 % 100
	for _, share := range strings.Split(*sizes, ",") {
		size, percent, _ := strings.Cut(share, ":")
		if place -= must(strconv.Atoi(percent)); place < 0 {
			return int64(must(strconv.Atoi(size)))
		}
	}
	panic("the shares of -sizes must be 100 in all")
}

func prepare() []image {
	made := make([]image, *images)
	var wait sync.WaitGroup
	for number := range made {
		wait.Go(func() { made[number] = newImage(number, megabytes(number)) })
	}
	wait.Wait()
	return made
}

func main() {
	flag.Parse()
	made := prepare()
	work := map[string]func(*client, int){
		"push-monolith": func(c *client, n int) { c.push(made[n], false) },
		"push-chunk":    func(c *client, n int) { c.push(made[n], true) },
		"pull":          func(c *client, n int) { c.pull(made[n]) },
		"catalog":       func(c *client, n int) { c.do("GET", "/v2/_catalog?n=1000", "", nil, 0, 200) },
		"mixed": func(c *client, n int) {
			if n%4 == 3 {
				c.push(made[n], false)
			} else {
				c.pull(made[n])
			}
		},
	}[*test]
	if !strings.HasPrefix(*test, "push") {
		c := newClient()
		for number, each := range made {
			if *test != "mixed" || number%4 != 3 {
				c.push(each, false)
			}
		}
	}
	took := make([]float64, *images)
	statuses := map[int]int{}
	var wait sync.WaitGroup
	var lock sync.Mutex
	started := time.Now()
	for first := range *clients {
		wait.Go(func() {
			c := newClient()
			for number := first; number < *images; number += *clients {
				begun := time.Now()
				work(c, number)
				took[number] = float64(time.Since(begun).Microseconds()) / 1000
			}
			lock.Lock()
			defer lock.Unlock()
			for status, count := range c.statuses {
				statuses[status] += count
			}
		})
	}
	wait.Wait()
	seconds := time.Since(started).Seconds()
	sort.Float64s(took)
	at := func(share float64) float64 { return took[int(share*float64(len(took)-1))] }
	fmt.Println(string(must(json.Marshal(map[string]any{
		"rate": float64(*images) / seconds, "p50": at(.5), "p90": at(.9), "p99": at(.99), "statuses": statuses,
	}))))
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}
