// Package apache runs Apache Kafka in the lab: KRaft brokers with SASL and ACLs, and Kafka Connect with MirrorMaker 2, each
// a java process of its own that can be killed and started again with its state.
//
// Start reading at Missing and Fetch: what has to be installed, and where Kafka comes from. broker.go starts clusters,
// connect.go workers, connectors.go the connectors on them, and acls.go says what MirrorMaker 2 needs. The files beside them
// (pom.xml, broker.properties, connect.properties, connectors/) are plain: Kafka fills in their ${...} itself, so that
// docker-compose.yml starts the same programs with the very same files. What is put into the clusters is package setup's
// affair.
package apache

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"switchback/lab/servers"
)

//go:embed pom.xml
var pom []byte

var pomVersion = regexp.MustCompile(`<kafka\.version>(.*)</kafka\.version>`)

// Version of Kafka that the lab runs.
func Version() string { return string(pomVersion.FindSubmatch(pom)[1]) }

// leastJava is what Kafka 4 needs.
const leastJava = 17

// Runtime is a java, and the class path of Kafka.
type Runtime struct{ Java, ClassPath string }

// Missing says in one sentence what has to be installed before Kafka can run here; it is empty when nothing is.
func Missing() string { return missing() }

var missing = sync.OnceValue(func() string {
	if _, err := findJava(); err != nil {
		return err.Error()
	}
	if dir, err := jarsDir(); err == nil && isDir(dir) {
		return "" // fetched already
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return fmt.Sprintf("mvn is not on the PATH: install Maven, which fetches Apache Kafka %s once", Version())
	}
	return ""
})

// Fetch finds java and returns Kafka's class path. The jars are fetched once for each content of the pom, into the user's
// cache folder. Two that fetch at once wait for each other.
func Fetch(ctx context.Context) (Runtime, error) {
	java, err := findJava()
	if err != nil {
		return Runtime{}, fmt.Errorf("run Apache Kafka: %w", err)
	}
	dir, err := jarsDir()
	if err != nil {
		return Runtime{}, fmt.Errorf("fetch Apache Kafka: %w", err)
	}
	r := Runtime{Java: java, ClassPath: filepath.Join(dir, "*")}
	if isDir(dir) {
		return r, nil
	}
	return r, servers.Locked(ctx, dir+".lock", func() error {
		if isDir(dir) { // by whoever held the lock before
			return nil
		}
		return fetch(ctx, dir)
	})
}

func fetch(ctx context.Context, dir string) error {
	fmt.Fprintf(servers.Progress, "Fetching Apache Kafka %s once, into %s (55 MB); later starts reuse it.\n", Version(), dir)
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := os.MkdirAll(unfinished, 0o750); err != nil {
		return err
	}
	file := dir + ".pom.xml"
	if err := servers.WriteFile(file, pom); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mvn", "-B", "-q", "-f", file, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+unfinished) //nolint:gosec // paths of our own
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Apache Kafka with %v: %w\n%s", cmd.Args, err, said)
	}
	return os.Rename(unfinished, dir)
}

// jarsDir names everything that decides what is fetched.
func jarsDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(pom)
	return filepath.Join(cache, "switchback", "kafka-"+Version()+"-"+hex.EncodeToString(sum[:])[:8]), nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

var javaVersion = regexp.MustCompile(`version "(\d+)`)

// findJava prefers JAVA_HOME's, like Kafka's own scripts.
var findJava = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv("JAVA_HOME"), "bin", "java")
	if os.Getenv("JAVA_HOME") == "" {
		var err error
		if path, err = exec.LookPath("java"); err != nil {
			return "", fmt.Errorf("java is not on the PATH: install Java %d or later", leastJava)
		}
	}
	said, err := exec.Command(path, "-version").CombinedOutput() //nolint:gosec // the user's own java
	if err != nil {
		return "", fmt.Errorf("%s -version: %w: install Java %d or later", path, err, leastJava)
	}
	found := javaVersion.FindSubmatch(said)
	if found == nil {
		return "", fmt.Errorf("%s does not say which version it is (%s): install Java %d or later", path, bytes.TrimSpace(said), leastJava)
	}
	if major, err := strconv.Atoi(string(found[1])); err != nil || major < leastJava {
		return "", fmt.Errorf("%s is version %s: install Java %d or later", path, found[1], leastJava)
	}
	return path, nil
})

// args of a JVM that is to be ready soon and to stay small.
func (r Runtime) args(heap string, properties ...string) []string {
	args := []string{
		"-Xms" + heap, "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-Dorg.slf4j.simpleLogger.showShortLogName=true", "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
	}
	return append(append(args, properties...), "-cp", r.ClassPath)
}
