// Command coredns is CoreDNS with the plugins that a cluster's own DNS needs, and no more.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order in which a request meets the plugins, as in CoreDNS' own list.
	dnsserver.Directives = []string{"reload", "ready", "health", "errors", "loadbalance", "cache", "template", "kubernetes"}
	coremain.Run()
}
