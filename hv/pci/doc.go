// Package pci is the guest's PCI bus: configuration mechanism 1, functions with
// their registers, BARs that follow what the guest writes into them, MSI-X and
// INTx. It knows no device; hv/virtio/virtiopci and the chipset's own functions
// are built from it.
//
// Every register access may come from any vCPU. The bus has one lock, taken for
// configuration accesses only; accesses to what a BAR maps, and interrupts, do
// not take it.
package pci
