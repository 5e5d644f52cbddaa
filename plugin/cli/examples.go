package cli

// Examples in help texts; the image is the one of the emulator's demonstration.
const (
	ExampleTag = "iad.ocir.io/idwpqivumvev/scan-test:latest"
	ExampleKey = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
)
