// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "SmallModel",
    platforms: [.iOS(.v16)],
    products: [.library(name: "SmallModel", targets: ["SmallModel"])],
    dependencies: [
        .package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", from: "1.20.0"),
    ],
    targets: [
        .target(name: "Core", publicHeadersPath: "include"),
        .target(
            name: "SmallModel",
            dependencies: ["Core", .product(name: "onnxruntime", package: "onnxruntime-swift-package-manager")],
            resources: [.copy("model")]
        ),
    ],
    cxxLanguageStandard: .cxx17
)
