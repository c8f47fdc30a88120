// Command node holds what runs on the node and beside it: kubelet, kube-proxy, kubectl and the provisioner behind the
// default storage class. The first argument says which, or the name under which it is called (a link named kubectl).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"github.com/perses-stack/perses-stack/e2e/cluster/provisioner"
)

func main() {
	program := filepath.Base(os.Args[0])
	if program == "node" && len(os.Args) > 1 {
		program = os.Args[1]
		os.Args = os.Args[1:]
	}
	switch program {
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case "kube-proxy":
		os.Exit(cli.Run(kubeproxy.NewProxyCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	case "provisioner":
		os.Exit(provisioner.Main(os.Args[1:]))
	default:
		fmt.Fprintln(os.Stderr, "usage: node kubelet|kube-proxy|kubectl|provisioner [flags]")
		os.Exit(2)
	}
}
