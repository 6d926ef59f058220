# kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and etcd.
FROM scratch
COPY root/ /
ENV PATH=/usr/local/bin:/usr/sbin
