// A provider of the Secrets Store CSI driver for tests. It answers in the shape of one vendor's provider, from a file,
// and only to the accounts that the file names: it checks the token that comes with a request as that vendor's cloud
// would, with the public keys of the cluster.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/fake"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

var (
	folder   = flag.String("folder", "/var/run/runkeys/providers", "folder of the socket")
	name     = flag.String("name", "", "name of the socket, without .sock")
	shape    = flag.String("shape", "", "aws, azure or gcp; driver: the driver's own fake, which checks nothing")
	state    = flag.String("state", "", "JSON file with what is served; read for each request. Unset: the variable STATE")
	audience = flag.String("audience", "", "audience that tokens must have")
	record   = flag.String("record", "", "file to which each request is appended, as a line of JSON; -: printed, without the token")
	look     = flag.Bool("look", false, "print what this process finds in its container")
)

// State is what is served, to whom, and by which keys tokens are checked.
type State struct {
	Keys    json.RawMessage     `json:"keys"`    // a JWKS
	Secrets map[string]string   `json:"secrets"` // by name
	Allowed map[string][]string `json:"allowed"` // names by account, as system:serviceaccount:NAMESPACE:NAME
}

// Asked is a line of the record.
type Asked struct {
	Account string   `json:"account"`
	Pod     string   `json:"pod"`
	Token   string   `json:"token"`
	Objects []string `json:"objects"`
	Error   string   `json:"error"`
}

func main() {
	flag.Parse()
	if *look {
		inventory()
	}
	socket := filepath.Join(*folder, *name+".sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		log.Fatal(err)
	}
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM, syscall.SIGINT)
	if *shape == "driver" {
		serveFake(socket)
		<-done
		return
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, &provider{})
	go func() {
		<-done
		server.Stop()
	}()
	log.Printf("serving %s as %s", socket, *shape)
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

// serveFake starts the driver's own provider for tests, with all secrets as files.
func serveFake(socket string) {
	served, err := readState()
	if err != nil {
		log.Fatal(err)
	}
	server, err := fake.NewMocKCSIProviderServer(socket)
	if err != nil {
		log.Fatal(err)
	}
	files, objects := []*v1alpha1.File{}, map[string]string{}
	for name, content := range served.Secrets {
		files = append(files, &v1alpha1.File{Path: name, Mode: 0o400, Contents: []byte(content)})
		objects[name] = "v1"
	}
	server.SetFiles(files)
	server.SetObjects(objects)
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
}

type provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	lock sync.Mutex
}

func (*provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "runkeys-test", RuntimeVersion: "0.0.1"}, nil
}

func (p *provider) Mount(_ context.Context, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	asked := Asked{}
	files, err := answer(request, &asked)
	if err != nil {
		asked.Error = err.Error()
	}
	p.write(asked)
	if err != nil {
		return nil, err
	}
	versions := []*v1alpha1.ObjectVersion{}
	for _, file := range files {
		versions = append(versions, &v1alpha1.ObjectVersion{Id: file.Path, Version: "v1"})
	}
	return &v1alpha1.MountResponse{Files: files, ObjectVersion: versions}, nil
}

func (p *provider) write(asked Asked) {
	if *record == "" {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if *record == "-" {
		asked.Token = ""
		line, _ := json.Marshal(asked)
		fmt.Println(string(line))
		return
	}
	file, err := os.OpenFile(*record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	line, _ := json.Marshal(asked)
	if _, err := file.Write(append(line, '\n')); err != nil {
		log.Fatal(err)
	}
}

func readState() (State, error) {
	var found State
	content := []byte(os.Getenv("STATE"))
	if *state != "" {
		var err error
		if content, err = os.ReadFile(*state); err != nil {
			return found, err
		}
	}
	if err := json.Unmarshal(content, &found); err != nil {
		return found, fmt.Errorf("%s: %w", *state, err)
	}
	return found, nil
}
